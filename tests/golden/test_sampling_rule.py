"""Does the plain rule that the sampler's tests go by give each token the chance that transformers gives it?

Does not cover: the sampler (tests/unit/test_sampler.py, test_sampling_distribution.py).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from coordinator.engine.sampling_params import SamplingParams
from tests.support.logits_rule import chances
from tests.support.random_models import random_numbers
from tests.support.transformers_answers import Theirs, numbers

TEMPERATURES, SHARES = (0.3, 1.0, 2.0), (0.05, 0.33, 0.5, 0.9, 0.999, 1.0)
FEW_COUNT, MOST_TOKENS = 400, 12
Case = tuple[list[float], float, int, float]


def few_tokens() -> list[Case]:
    """Return cases full of ties, with more tokens wanted than there are, and with everything off."""
    words = iter(int(word) for word in np.random.Philox(key=11).random_raw(FEW_COUNT * (MOST_TOKENS + 4)))
    cases: list[Case] = [([0.0] * 10, 1.0, 0, 0.9), ([0.0, 0.0], 1.0, 0, 0.5)]
    for _ in range(FEW_COUNT):
        values = [float(next(words) % 17 - 8) for _ in range(1 + next(words) % MOST_TOKENS)]
        cases.append((values, TEMPERATURES[next(words) % 3], next(words) % 15, SHARES[next(words) % 6]))
    return cases


def many_tokens() -> list[Case]:
    """Return logits as a model has them, with the options of test_sampling_distribution.py."""
    logits = (random_numbers(np.random.Philox(key=5), (3000,)) * 2.5).astype(np.float32).tolist()
    options = [
        (1.0, 0, 1.0),
        (0.6, 0, 1.0),
        (1.7, 0, 1.0),
        (1.0, 20, 1.0),
        (1.0, 0, 0.8),
        (1.4, 50, 0.9),
        (0.7, 40, 0.95),
    ]
    return [(logits, *each) for each in options]


@pytest.mark.parametrize("make_cases", [few_tokens, many_tokens])
def test_the_plain_rule_is_that_of_transformers(make_cases: Callable[[], list[Case]], theirs: Theirs) -> None:
    """The same chance of every token, and none for the same ones."""
    cases = make_cases()
    for (logits, temperature, top_k, top_p), said in zip(cases, theirs.ask("chances", cases), strict=True):
        params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
        wanted = numbers(said)
        found = chances(np.array(logits, np.float32), params)
        assert np.array_equal(found > 0, wanted > 0)
        np.testing.assert_allclose(found, wanted, atol=1e-6)


Changed = tuple[list[float], list[int], list[tuple[int, float]], float, float, float]


def changed_tokens() -> list[Changed]:
    """Return logits with tokens so far, biases, and each of the other options, on and off."""
    words = iter(int(word) for word in np.random.Philox(key=12).random_raw(FEW_COUNT * (MOST_TOKENS + 16)))
    cases: list[Changed] = []
    for _ in range(FEW_COUNT // 4):
        values = [float(next(words) % 33 - 16) / 4 for _ in range(2 + next(words) % MOST_TOKENS)]
        tokens = [next(words) % len(values) for _ in range(1 + next(words) % 4)]
        biases = [(token_id, float(next(words) % 9 - 4) or 1.5) for token_id in range(next(words) % 3)]
        options = (1.0, 1.3, 0.7)[next(words) % 3], TEMPERATURES[next(words) % 3], (0.0, 0.1, 0.6, 1.0)[next(words) % 4]
        cases.append((values, tokens, biases, *options))
    return cases


def test_bias_repetition_and_min_p_of_the_plain_rule_are_those_of_transformers(theirs: Theirs) -> None:
    """In generate()'s order: bias, tokens that were there, temperature, and what is too far below the best."""
    cases = changed_tokens()
    for case, said in zip(cases, theirs.ask("changed_chances", cases), strict=True):
        logits, tokens, biases, repetition, temperature, min_p = case
        params = SamplingParams(
            temperature=temperature, top_p=1, min_p=min_p, repetition_penalty=repetition, logit_bias=dict(biases)
        )
        wanted = numbers(said)
        found = chances(np.array(logits, np.float32), params, tokens)
        assert np.array_equal(found > 0, wanted > 0)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
