"""The pass that chooses next tokens chooses what numpy's way does, whatever options and logits it is given.

Covers: common/native/sampling.c and common/native/weigh.c against coordinator/engine/plain_choice.py, on every
instruction set that this processor has. Does not cover: whether that is what transformers does
(tests/unit/test_sampler.py), other processors (test_instruction_sets.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.compute import matmul
from common.native.address import address
from common.native.choices import Choice
from common.native.library import Outcome
from common.weights.stored_numbers import Floats
from coordinator.engine.plain_choice import choose
from coordinator.engine.sampler import Sampler, SamplingParams, Turn, choose_together

DRAWS = 8
"""Seeds for each row of logits."""


@pytest.fixture(scope="module", params=[1, 3])
def thread_count(request: pytest.FixtureRequest) -> Iterator[int]:
    """Let the pass have so many threads."""
    if matmul.kernels.functions is None:
        pytest.skip(matmul.kernels.reason)
    matmul.kernels.set_thread_count(request.param, 0)
    yield request.param
    matmul.kernels.set_thread_count(1)


def logits_of(kind: str, count: int, seed: int) -> Floats:
    """Return logits: as a model has them, of few values, all alike, next to each other, or far apart."""
    numbers: Floats = np.random.default_rng(seed).standard_normal(count, np.float32)
    made: Floats = numbers * np.float32(1e30 if kind == "apart" else 3)
    if kind == "few":
        made = np.rint(numbers * 2)
    if kind == "alike":
        made = np.full(count, numbers[0])
    if kind == "near":
        made = np.float32(7) + numbers * np.float32(1e-6)
    return made


def params_of(draw: st.DrawFn) -> SamplingParams:
    """Return any lawful options, often those that are off."""
    number = st.floats(0, 1, width=32)
    penalty = st.sampled_from([0.0, 0.0, 0.5, -1.5, 2.0])
    return SamplingParams(
        temperature=draw(st.sampled_from([0.0, 1e-30, 0.3, 0.8, 1.0, 1.7, 50.0, 1e39])),
        top_k=draw(st.sampled_from([0, 0, 1, 2, 7, 40, 700, 1 << 40])),
        top_p=draw(st.one_of(st.sampled_from([1.0, 0.9, 0.5, 1e-12, 1 - 2.0**-53]), number.filter(bool))),
        min_p=draw(st.one_of(st.sampled_from([0.0, 0.05, 1.0]), number)),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.3, 0.5, 100.0])),
        presence_penalty=draw(penalty), frequency_penalty=draw(penalty),
        logit_bias=draw(st.dictionaries(st.integers(0, 3), st.floats(-100, 100, width=32), max_size=3)),
    )  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, SamplingParams, array[int], int]:
    """Draw logits, options, the tokens so far and how many of them are the answer's."""
    kind = draw(st.sampled_from(["model", "few", "alike", "near", "apart"]))
    count = draw(st.sampled_from([4, 5, 15, 16, 17, 100, 1000, 3001]))
    tokens = array("i", draw(st.lists(st.integers(0, count - 1), max_size=12)))
    answer_count = draw(st.integers(0, max(0, len(tokens) - 1)))
    return logits_of(kind, count, draw(st.integers(0, 1 << 32))), params_of(draw), tokens, answer_count


@settings(max_examples=300)
@given(case=cases())
@example(case=(np.zeros(10, np.float32), SamplingParams(top_p=0.9), array("i"), 0))
@example(case=(np.zeros(3000, np.float32), SamplingParams(top_p=0.5, top_k=7), array("i"), 0))
@example(case=(np.full(4, -3e38, np.float32), SamplingParams(logit_bias={1: -100.0}), array("i"), 0))
def test_the_pass_chooses_what_numpy_does(
    thread_count: int, case: tuple[Floats, SamplingParams, array[int], int]
) -> None:
    """The same token from every draw: ties at each edge, all options at once, and logits left as they were."""
    logits, params, tokens, answer_count = case
    turns = [Turn(Sampler(params, seed), answer_count, tokens) for seed in range(DRAWS)]
    expected = [turn.sampler.plain_choice(logits, turn) for turn in turns]
    rows = np.tile(logits, (DRAWS, 1))
    for variant in matmul.kernels.variants:
        matmul.kernels.choose(variant)
        assert choose_together(rows, turns) == expected, variant
    matmul.kernels.choose(matmul.kernels.variant)
    assert np.array_equal(rows, np.tile(logits, (DRAWS, 1)))


def test_a_vocabulary_as_large_as_a_models_gives_the_same_choices(thread_count: int) -> None:
    """49,152 tokens, 24 rows of their own logits, options and positions in one call."""
    logits = np.stack([logits_of("model", 49_152, seed) for seed in range(24)])
    options = [
        SamplingParams(), SamplingParams(temperature=0.8), SamplingParams(top_p=1), SamplingParams(top_k=50),
        SamplingParams(temperature=2.5, top_p=0.95), SamplingParams(min_p=0.02, top_p=1),
    ]  # fmt: skip
    turns = [Turn(Sampler(options[row % len(options)], row), 3 * row) for row in range(24)]
    assert choose_together(logits, turns) == [
        turn.sampler.plain_choice(row, turn) for row, turn in zip(logits, turns, strict=True)
    ]


@pytest.mark.parametrize(("named", "likeliest_count"), [(10, 3), (-1, 3), (1 << 30, 3), (9, 11)])
def test_a_token_outside_the_vocabulary_is_refused_before_anything_is_written(
    thread_count: int, named: int, likeliest_count: int
) -> None:
    """By bias or penalty, or more of the likeliest than there are: of one row, and no row of the call is chosen."""
    logits, ids, room = np.zeros((2, 10), np.float32), array("i", [named]), array("i", [7] * 11)
    biases, place = array("f", [1.0]), ids.buffer_info()[0]
    for options in (
        {"biased_ids": place, "biases": biases.buffer_info()[0], "bias_count": 1},
        {"token_ids": place, "token_count": 1},
    ):
        choices = (Choice * 2)(Choice(token_id=77), Choice(token_id=77, repetition=1, **options))
        choices[0].likeliest_count, choices[0].likeliest_ids = likeliest_count, room.buffer_info()[0]
        outcome = matmul.functions().shardmesh_choose_tokens(address(logits), 10, choices, 2)
        assert (outcome, [choice.token_id for choice in choices]) == (Outcome.REFUSED, [77, 77])
    assert room.tolist() == [7] * 11


def test_what_penalties_and_bias_do_to_a_token_is_what_they_say() -> None:
    """By hand: 2 is the likeliest; each of the options alone makes it less so than 1, which is next."""
    logits = np.array([0, 3, 3.5, -1], np.float32)
    for values in (
        {"repetition_penalty": 1.2}, {"presence_penalty": 0.6}, {"frequency_penalty": 0.3}, {"logit_bias": {2: -0.6}},
        {"logit_bias": {1: 0.6}},
    ):  # fmt: skip
        params = SamplingParams(temperature=0, **values)
        assert choose(logits, params, 0.5, (0, 2, 2), 1) == 1, values
    assert choose(logits, SamplingParams(temperature=0, frequency_penalty=0.3), 0.5, (2, 2), 2) == 2  # a prompt's
