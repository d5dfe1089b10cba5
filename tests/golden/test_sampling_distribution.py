"""Over many seeds, first tokens are distributed as transformers' logits processors say.

Does not cover: which tokens are possible at all (tests/unit/test_sampler.py).
"""

from __future__ import annotations

import numpy
import pytest
import torch
from scipy import stats
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from coordinator.engine.sampler import Sampler, SamplingParams

SEED_COUNT = 2000
TOKEN_COUNT = 3000
LEAST_EXPECTED_COUNT = 5
"""Below this the chi-square approximation does not hold; rarer tokens are counted together."""


def probabilities(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Return what transformers would draw from, in the order generate() applies it."""
    processors = LogitsProcessorList()
    if params.temperature != 1:
        processors.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    return processors(None, logits[None])[0].softmax(dim=-1)


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
def test_first_tokens_are_distributed_as_in_transformers(params: SamplingParams) -> None:
    """2,000 seeds, chi-square: the difference is no larger than chance makes it."""
    logits = torch.randn(TOKEN_COUNT, generator=torch.Generator().manual_seed(5)) * 2.5
    expected = probabilities(logits, params).double().numpy() * SEED_COUNT
    drawn = [Sampler(params, seed).sample(logits) for seed in range(SEED_COUNT)]
    counts = numpy.bincount(drawn, minlength=TOKEN_COUNT)
    assert not counts[expected == 0].any()
    common = expected >= LEAST_EXPECTED_COUNT
    observed, wanted = list(counts[common]), list(expected[common])
    if expected[~common].sum() >= LEAST_EXPECTED_COUNT:
        observed.append(counts[~common].sum())
        wanted.append(expected[~common].sum())
    wanted_total = sum(wanted)
    assert len(wanted) >= 8
    result = stats.chisquare(observed, [value * sum(observed) / wanted_total for value in wanted])
    assert result.pvalue > 0.001


def test_the_comparison_would_notice_a_wrong_order() -> None:
    """Top-p before temperature keeps other tokens: the parameters above tell the two apart."""
    params = SamplingParams(temperature=1.4, top_k=50, top_p=0.9)
    logits = torch.randn(TOKEN_COUNT, generator=torch.Generator().manual_seed(5)) * 2.5
    swapped = TopKLogitsWarper(50)(None, TopPLogitsWarper(0.9)(None, logits[None])) / 1.4
    difference = (probabilities(logits, params) - swapped[0].softmax(dim=-1)).abs().sum()
    assert difference > 0.05
