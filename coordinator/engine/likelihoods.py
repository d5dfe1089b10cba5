"""How likely did the model hold a token that was chosen, and which did it hold likeliest?

Does not cover: choosing (sampler.py). The chances are the model's own: before bias, penalties, temperature and all that
leaves tokens out. Nothing here imports numpy: events carry it to whoever asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Natural logarithms of probabilities, of one place in an answer."""

    logprob: float
    """Of the token that was chosen."""
    likeliest: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens' ids, likeliest first, with their own; of equals the smaller id first."""


def logprob(logit: float, highest: float, total: float) -> float:
    """Return a token's. Args: highest: of all logits; total: of e to what each is below it."""
    return (logit - highest) - math.log(total)
