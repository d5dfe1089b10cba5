"""Over many seeds, and over the positions of an answer, tokens are distributed as transformers' logits processors say.

Does not cover: which tokens are possible at all (tests/unit/test_sampler.py), whether the rule that this goes by,
tests/support/logits_rule.py, is transformers' (test_sampling_rule.py).
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import chdtrc

from coordinator.engine.sampler import Sampler, SamplingParams
from tests.support.logits_rule import chances, softmax, top_k, top_p

SEED_COUNT = 2000
TOKEN_COUNT = 3000
LEAST_EXPECTED_COUNT = 5
"""Below this the chi-square approximation does not hold; rarer tokens are counted together."""


LOGITS = np.random.default_rng(5).standard_normal(TOKEN_COUNT, np.float32) * np.float32(2.5)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0, top_p=1.0),
        SamplingParams(temperature=0.6, top_p=1.0),
        SamplingParams(temperature=1.7, top_p=1.0),
        SamplingParams(top_k=20, top_p=1.0),
        SamplingParams(top_p=0.8),
        SamplingParams(temperature=1.4, top_k=50, top_p=0.9),
        SamplingParams(temperature=0.7, top_k=40, top_p=0.95),
    ],
    ids=repr,
)
@pytest.mark.parametrize("by", ["seed", "position"])
def test_tokens_are_distributed_as_in_transformers(params: SamplingParams, by: str) -> None:
    """2,000 seeds, or one seed at 2,000 positions; chi-square: the difference is no larger than chance makes it."""
    expected = chances(LOGITS, params).astype(np.float64) * SEED_COUNT
    draws = range(SEED_COUNT)
    drawn = [Sampler(params, 7 if by == "position" else at).sample(LOGITS, at if by == "position" else 0)
             for at in draws]  # fmt: skip
    counts = np.bincount(drawn, minlength=TOKEN_COUNT)
    assert not counts[expected == 0].any()
    common = expected >= LEAST_EXPECTED_COUNT
    observed, wanted = list(counts[common]), list(expected[common])
    if expected[~common].sum() >= LEAST_EXPECTED_COUNT:
        observed.append(counts[~common].sum())
        wanted.append(expected[~common].sum())
    wanted_total = sum(wanted)
    assert len(wanted) >= 8
    expected_counts = np.array(wanted) * sum(observed) / wanted_total
    chi_square = (np.square(observed - expected_counts) / expected_counts).sum()
    assert chdtrc(len(wanted) - 1, chi_square) > 0.001


PARAMS = SamplingParams(temperature=1.4, top_k=50, top_p=0.9)


def test_the_comparison_would_notice_a_wrong_order() -> None:
    """Top-p before temperature keeps other tokens: the parameters above tell the two apart."""
    swapped = softmax(top_k(top_p(LOGITS, 0.9), 50) / np.float32(1.4))
    assert np.abs(chances(LOGITS, PARAMS) - swapped).sum() > 0.05
