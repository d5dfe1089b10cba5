"""What may a sampler draw, and with which chance? transformers' processors, written down in the plainest way.

Covers: bias, repetition, temperature, top-k, top-p, min-p, one after the other, as generate() applies them. Does not
cover: drawing; penalties for presence and frequency, which transformers has not; whether
transformers says the same (tests/golden/test_sampling_rule.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.weights.stored_numbers import Floats
from coordinator.engine.sampling_params import SamplingParams


def chances(logits: Floats, params: SamplingParams, token_ids: Sequence[int] = ()) -> Floats:
    """Return each token's chance: 0 for those that do not stay.

    Args: params: of a temperature above 0. token_ids: of prompt and answer so far.
    """
    changed: Floats = logits.copy()
    for token_id, bias in params.logit_bias.items():
        changed[token_id] += np.float32(bias)
    for token_id in set(token_ids):
        repetition = np.float32(params.repetition_penalty)
        changed[token_id] = changed[token_id] * repetition if changed[token_id] < 0 else changed[token_id] / repetition
    scores = top_k(changed / np.float32(params.temperature), params.top_k)
    return softmax(min_p(top_p(scores, params.top_p), params.min_p))


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


def min_p(scores: Floats, share: float) -> Floats:
    """Return scores, minus infinity for tokens that are less than `share` times as likely as the likeliest."""
    found = softmax(scores)
    return np.where(found < np.float32(share) * found.max(), -np.inf, scores)


def softmax(scores: Floats) -> Floats:
    """Return chances in proportion to e to the scores."""
    powers = np.exp(scores - scores.max())
    found: Floats = powers / powers.sum()
    return found
