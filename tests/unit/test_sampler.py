"""The sampler refuses what makes no sense, is repeatable, and keeps exactly the tokens transformers keeps.

Covers: coordinator/engine/sampler.py and what it asks. Does not cover: the distribution of what it chooses
(tests/golden/test_sampling_distribution.py), random numbers (test_draws.py).
"""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import log_softmax

from common.compute import matmul
from common.errors import InputError, NodeFault, ShapeError
from common.native.library import absent
from common.weights.stored_numbers import Floats
from coordinator.engine import plain_choice
from coordinator.engine import sampler as sampler_module
from coordinator.engine.sampler import Chosen, Sampler, Turn, choose_together
from coordinator.engine.sampling_params import SEED_LIMITS, SamplingParams
from tests.support.logits_rule import chances

KNOWN_BITS = ["0x1.368b2fc6f838cp-1", "0x1.78b563635cc05p-2", "0x1.7cd79b56ae41ap-15", "0x1.7fd974d3c35b6p-116"]
"""Of e to the -0.5, -1, -10 and -80, as the first machine had them."""


def together(logits: Floats, turns: list[Turn]) -> list[Chosen]:
    """Return what rows' turns choose, none of which fails."""
    return [chosen for chosen in choose_together(logits, turns) if isinstance(chosen, Chosen)]


def random_logits(token_count: int = 500, seed: int = 0) -> Floats:
    """Return logits as a model has them: float32, some far above the rest."""
    return np.random.default_rng(seed).standard_normal(token_count, np.float32) * 3


@pytest.mark.parametrize(
    ("values", "option"),
    [
        ({"temperature": -0.1}, "--temperature"),
        ({"temperature": math.nan}, "--temperature"),
        ({"temperature": math.inf}, "--temperature"),
        ({"top_k": -1}, "--k"),
        ({"top_p": 0.0}, "--p"),
        ({"top_p": -0.5}, "--p"),
        ({"top_p": 2.0}, "--p"),
        ({"top_p": math.nan}, "--p"),
        ({"min_p": 1.1}, "--min-p"),
        ({"logprobs": 21}, "--logprobs"),
        ({"min_p": math.nan}, "--min-p"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty"),
        ({"presence_penalty": 2.1}, "--presence-penalty"),
        ({"frequency_penalty": -math.inf}, "--frequency-penalty"),
        ({"logit_bias": {3: 101.0}}, "--logit-bias"),
        ({"logit_bias": {-1: 1.0}}, "--logit-bias"),
        ({"logit_bias": dict.fromkeys(range(1025), 1.0)}, "--logit-bias"),
    ],
)
def test_value_out_of_range_is_refused_by_its_option(values: dict[str, object], option: str) -> None:
    """The message names what the person typed."""
    with pytest.raises(InputError, match=f"^{option} is "):
        SamplingParams(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1 << 64, -(1 << 63) - 1])
def test_seed_of_more_than_64_bits_is_refused(seed: int) -> None:
    """It would be the same as another one."""
    with pytest.raises(InputError, match="--seed"):
        Sampler(SamplingParams(), seed)


@pytest.mark.parametrize("seed", [0, -1, (1 << 64) - 1, -(1 << 63)])
def test_same_seed_gives_the_same_tokens(seed: int) -> None:
    """Any seed of 64 bits, signed or not; asked in any order, as after a replay."""
    logits = [random_logits(seed=i) for i in range(20)]
    first, second = Sampler(SamplingParams(), seed), Sampler(SamplingParams(), seed)
    forward = [first.sample(row, position) for position, row in enumerate(logits)]
    assert forward == [second.sample(logits[position], position) for position in reversed(range(20))][::-1]


def test_another_seed_gives_other_tokens() -> None:
    """The seed matters."""
    logits = [random_logits(seed=i) for i in range(20)]
    first, second = Sampler(SamplingParams(), 1), Sampler(SamplingParams(), 2)
    assert [first.sample(row, 0) for row in logits] != [second.sample(row, 0) for row in logits]


def test_another_position_gives_another_draw() -> None:
    """The same logits all the way do not give one token all the way."""
    sampler = Sampler(SamplingParams(), 3)
    assert len({sampler.sample(random_logits(), position) for position in range(20)}) > 5


def test_temperature_zero_is_greedy() -> None:
    """Always the likeliest token, the first of equals."""
    sampler = Sampler(SamplingParams(temperature=0, top_k=3, top_p=0.5), 0)
    assert sampler.sample(np.array([0, 5, 5, 1], np.float32), 0) == 1


@pytest.mark.parametrize("temperature", [5e-324, 1e-46, 7e-46, 1e-45, 1e-38, 1e-30, 1e-5])
def test_tiny_temperature_chooses_the_likeliest_token(temperature: float) -> None:
    """Dividing by almost nothing neither overflows nor makes a NaN."""
    logits = random_logits()
    assert Sampler(SamplingParams(temperature=temperature), 0).sample(logits, 0) == int(logits.argmax())


@pytest.mark.parametrize("temperature", [-0.0, 5e-324, 1e-40, 1.2e-38, 1.0, 3.5e38, 1e39, math.nextafter(math.inf, 0)])
@pytest.mark.parametrize(
    "logits",
    [
        random_logits(), np.zeros(1, np.float32), np.array([3e38, -3e38, 0.0], np.float32),
        np.full(500, -3e38, np.float32), random_logits() * np.float32(1e-44),
    ],
    ids=["usual", "one token", "far apart", "all alike", "next to nothing"],
)  # fmt: skip
def test_every_lawful_option_at_its_ends_chooses_a_token(temperature: float, logits: Floats) -> None:
    """Whatever meets whatever: no NaN, always something left to choose from, nothing that numpy warns of."""
    for top_k in (0, 1, 500, 501, 1 << 31, 1 << 64):
        for top_p in (5e-324, 1e-45, 0.9, math.nextafter(1, 0), 1.0):
            params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
            assert all(0 <= Sampler(params, seed).sample(logits, 0) < len(logits) for seed in SEED_LIMITS)


def test_a_huge_temperature_draws_from_everything_that_can_be() -> None:
    """Also beyond what float32 can hold: all tokens are alike then, as far as they are numbers of one size."""
    params = SamplingParams(temperature=1e300, top_p=1)
    logits = np.array([0, 5, -9], np.float32)
    assert {Sampler(params, seed).sample(logits, 0) for seed in range(40)} == {0, 1, 2}


def test_tiny_p_still_keeps_the_likeliest_token() -> None:
    """A p that float32 cannot tell from 0 is greedy, not empty."""
    logits = random_logits()
    assert Sampler(SamplingParams(top_p=1e-12), 0).sample(logits, 0) == int(logits.argmax())


def test_many_rare_tokens_count_toward_p() -> None:
    """A thousand tokens that go unsorted still push the running sum up: the second likeliest stays."""
    logits = np.log(np.array([0.2 / 1000] * 1000 + [0.2, 0.25, 0.35], np.float32))
    drawn = {Sampler(SamplingParams(top_p=0.5), seed).sample(logits, 0) for seed in range(60)}
    assert drawn == {1001, 1002}


def test_logits_are_left_as_they_were() -> None:
    """The engine may look at them afterwards."""
    logits = random_logits()
    before = logits.copy()
    Sampler(SamplingParams(temperature=0.7, top_k=5, top_p=0.5), 0).sample(logits, 0)
    assert np.array_equal(logits, before)


@pytest.mark.parametrize(
    "logits",
    [np.zeros((2, 3), np.float32), np.zeros(0, np.float32), np.zeros(3, np.float64), np.zeros(3, np.uint16)],
)
def test_logits_of_another_shape_or_dtype_are_refused(logits: Floats) -> None:
    """Lower precision is never silent."""
    with pytest.raises(ShapeError):
        Sampler(SamplingParams(), 0).sample(logits, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error(value: float, temperature: float) -> None:
    """Never a wrong token: a broken partial sum ends the request."""
    logits = random_logits()
    logits[7] = value
    with pytest.raises(NodeFault, match="not finite"):
        Sampler(SamplingParams(temperature=temperature), 0).sample(logits, 0)


def test_large_logits_are_numbers() -> None:
    """A sum that overflows does not make its parts infinite."""
    logits = np.full(100, 3e38, np.float32)
    assert 0 <= Sampler(SamplingParams(), 0).sample(logits, 0) < 100


@given(
    values=st.lists(st.integers(-8, 8), min_size=1, max_size=12),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.integers(0, 14),
    top_p=st.sampled_from([0.05, 0.33, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.0, 0.07, 0.4]),
    repetition=st.sampled_from([1.0, 1.3, 0.7]),
)
@example(values=[0, 0], temperature=1.0, top_k=0, top_p=0.5, min_p=0.0, repetition=1.0)
@example(values=[0] * 10, temperature=1.0, top_k=0, top_p=0.9, min_p=0.0, repetition=1.0)
def test_only_tokens_that_transformers_keeps_are_drawn(
    values: list[int], temperature: float, top_k: int, top_p: float, min_p: float, repetition: float
) -> None:
    """Ties, more tokens wanted than there are, everything off: the same set."""
    logits = np.array(values, np.float32)
    params = SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition,
        logit_bias={0: 1.5},
    )  # fmt: skip
    tokens = array("i", [0, len(values) // 2])
    kept = set(np.flatnonzero(chances(logits, params, tokens)).tolist())
    turns = [Turn(Sampler(params, seed), 0, tokens) for seed in range(20)]
    drawn = {chosen.token_id for chosen in together(np.tile(logits, (20, 1)), turns)}
    assert drawn <= kept
    if len(kept) == 1:
        assert drawn == kept


def test_all_that_stays_is_drawn_in_proportion_whatever_a_vocabulary_is_like() -> None:
    """Every seed's choice is the one whose share of the line from 0 to 1 its number falls on: nothing at an end."""
    logits = random_logits(50)
    params = SamplingParams(temperature=1.3, top_k=30, top_p=0.8)
    sums = chances(logits, params).cumsum(dtype=np.float64)
    for number in (0.0, 0.25, 0.5, 0.999, 1 - 2.0**-52):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampler_module, "draw", lambda seed, position, number=number: number)
            drawn = Sampler(params, 0).sample(logits, 0)
        before = sums[drawn - 1] if drawn else 0.0
        assert before - 1e-6 <= number <= sums[drawn] + 1e-6
        assert sums[drawn] > before


def test_powers_of_e_are_those_of_the_library_and_of_known_bits() -> None:
    """Right to a part in three thousand million from 0 to the least that there is; 0 below; the same on any machine."""
    scores = -np.concatenate([np.linspace(0, 1, 1001), np.linspace(1, 700, 5000), [1000, np.inf]]).astype(np.float32)
    found = plain_choice._exponentials(scores)
    np.testing.assert_allclose(found, np.exp(scores.astype(np.float64)), rtol=3e-10, atol=1e-300)
    assert found[0] == 1
    assert found[-1] == found[-2] == 0
    few = plain_choice._exponentials(np.array([-0.5, -1, -10, -80], np.float32))
    assert [value.hex() for value in few.tolist()] == KNOWN_BITS


def test_a_row_that_is_not_finite_is_its_own_misfortune(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows beside it have the tokens that they have alone; with kernels and without."""
    logits = np.stack([random_logits(seed=seed) for seed in range(3)])
    logits[1, 4] = math.nan
    turns = [Turn(Sampler(SamplingParams(), seed), seed) for seed in range(3)]
    alone = [turns[row].sampler.sample(logits[row], row) for row in (0, 2)]
    for kernels in (matmul.kernels, absent("none here")):
        monkeypatch.setattr(matmul, "kernels", kernels)
        first, broken, last = choose_together(logits, turns)
        assert isinstance(broken, NodeFault)
        assert [first, last] == [Chosen(token_id) for token_id in alone]


def test_likelihoods_are_the_models_own_whatever_the_options_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the chosen token and the likeliest ones, as scipy's log-softmax has them; more than there are: all."""
    logits = np.stack([random_logits(40, seed) for seed in range(8)])
    wanted = log_softmax(logits.astype(np.float64), axis=1)
    for count in (0, 3, 20):
        params = SamplingParams(temperature=2.0, min_p=0.05, logit_bias={3: 9.0}, logprobs=count)
        turns = [Turn(Sampler(params, row), 0) for row in range(8)]
        for kernels in (matmul.kernels, absent("none here")):
            monkeypatch.setattr(matmul, "kernels", kernels)
            for chosen, own in zip(together(logits, turns), wanted, strict=True):
                assert chosen.likelihoods is not None
                assert chosen.likelihoods.logprob == pytest.approx(own[chosen.token_id], abs=1e-8)
                order = np.argsort(-own, kind="stable")[:count].tolist()
                assert [token_id for token_id, _ in chosen.likelihoods.likeliest] == order
                assert [logprob for _, logprob in chosen.likelihoods.likeliest] == pytest.approx(own[order], abs=1e-8)
        monkeypatch.undo()
