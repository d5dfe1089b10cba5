"""How freely is the next token chosen? Values that were asked for, checked.

Does not cover: choosing (sampler.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.errors import InputError

SEED_LIMITS = (-(1 << 63), (1 << 64) - 1)
"""Least and greatest seed: 64 bits, with a sign or without."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How freely the next token is chosen; checked at birth.

    Raises: InputError: a value outside its range, named by its option.
    """

    temperature: float = 1.0
    """Logits are divided by it; 0, or next to 0, takes the most likely token always."""
    top_k: int = 0
    """Only the k most likely tokens stay; 0 for all."""
    top_p: float = 0.9
    """Only the fewest most likely tokens stay whose probabilities reach p together; 1 for all."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"--temperature is {self.temperature}; a number of 0 (greedy) or more is needed")
        if self.top_k < 0:
            raise InputError(f"--k is {self.top_k}; a whole number of 0 (off) or more is needed")
        if not 0 < self.top_p <= 1:
            raise InputError(f"--p is {self.top_p}; a number above 0 and up to 1 (off) is needed")


def check_seed(seed: int) -> None:
    """Raise InputError unless the seed fits 64 bits."""
    if not SEED_LIMITS[0] <= seed <= SEED_LIMITS[1]:
        raise InputError(f"--seed is {seed}; it must fit 64 bits")
