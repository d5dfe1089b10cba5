"""What may a sampler draw, and with which chance? transformers' three processors, written down in the plainest way.

Covers: temperature, then top-k, then top-p, as generate() applies them. Does not cover: drawing; whether
transformers says the same (tests/golden/test_sampling_rule.py).
"""

from __future__ import annotations

import numpy as np

from common.weights.stored_numbers import Floats
from coordinator.engine.sampling_params import SamplingParams


def chances(logits: Floats, params: SamplingParams) -> Floats:
    """Return each token's chance: 0 for those that do not stay. Args: params: of a temperature above 0."""
    scores = top_k(logits / np.float32(params.temperature), params.top_k)
    return softmax(top_p(scores, params.top_p))


def top_k(scores: Floats, count: int) -> Floats:
    """Return scores, minus infinity where there are `count` higher ones; 0: all as they are."""
    return scores if not count else np.where(scores < np.sort(scores)[-min(count, scores.size)], -np.inf, scores)


def top_p(scores: Floats, share: float) -> Floats:
    """Return scores, minus infinity for the least likely that come to at most 1 - share together; never for all."""
    if share == 1:
        return scores
    order = np.argsort(scores, kind="stable")
    goes = softmax(scores)[order].cumsum() <= np.float32(1 - share)
    goes[-1] = False
    left: Floats = scores.copy()
    left[order[goes]] = -np.inf
    return left


def softmax(scores: Floats) -> Floats:
    """Return chances in proportion to e to the scores."""
    powers = np.exp(scores - scores.max())
    found: Floats = powers / powers.sum()
    return found
