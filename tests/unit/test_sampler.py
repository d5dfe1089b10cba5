"""The sampler refuses what makes no sense, is repeatable, and keeps exactly the tokens transformers keeps.

Does not cover: the distribution of what it chooses (tests/golden/test_sampling_distribution.py).
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from common.errors import InputError, NodeFault, ShapeError
from coordinator.engine.sampler import Sampler
from coordinator.engine.sampling_params import SEED_LIMITS, SamplingParams


def random_logits(token_count: int = 500, seed: int = 0) -> torch.Tensor:
    """Return logits as a model has them: float32, some far above the rest."""
    return torch.randn(token_count, generator=torch.Generator().manual_seed(seed)) * 3


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
    ],
)
def test_value_out_of_range_is_refused_by_its_option(values: dict[str, float], option: str) -> None:
    """The message names what the person typed."""
    with pytest.raises(InputError, match=f"^{option} is "):
        SamplingParams(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1 << 64, -(1 << 63) - 1])
def test_seed_of_more_than_64_bits_is_refused(seed: int) -> None:
    """torch would raise something without a name."""
    with pytest.raises(InputError, match="--seed"):
        Sampler(SamplingParams(), seed)


@pytest.mark.parametrize("seed", [0, -1, (1 << 64) - 1, -(1 << 63)])
def test_same_seed_gives_the_same_tokens(seed: int) -> None:
    """Any seed of 64 bits, signed or not."""
    logits = [random_logits(seed=i) for i in range(20)]
    first, second = Sampler(SamplingParams(), seed), Sampler(SamplingParams(), seed)
    assert [first.sample(row) for row in logits] == [second.sample(row) for row in logits]


def test_another_seed_gives_other_tokens() -> None:
    """The seed matters."""
    logits = [random_logits(seed=i) for i in range(20)]
    first, second = Sampler(SamplingParams(), 1), Sampler(SamplingParams(), 2)
    assert [first.sample(row) for row in logits] != [second.sample(row) for row in logits]


def test_a_sampler_shares_no_state_with_another() -> None:
    """What one sequence draws changes nothing for its neighbour, nor the global generator."""
    logits = random_logits()
    alone = Sampler(SamplingParams(), 3)
    expected = [alone.sample(logits) for _ in range(10)]
    state = torch.get_rng_state()
    one, other = Sampler(SamplingParams(), 3), Sampler(SamplingParams(), 4)
    found = []
    for _ in range(10):
        other.sample(logits)
        found.append(one.sample(logits))
    assert found == expected
    assert torch.equal(state, torch.get_rng_state())


def test_temperature_zero_is_greedy() -> None:
    """Always the likeliest token, the first of equals."""
    sampler = Sampler(SamplingParams(temperature=0, top_k=3, top_p=0.5), 0)
    assert sampler.sample(torch.tensor([0.0, 5.0, 5.0, 1.0])) == 1


@pytest.mark.parametrize("temperature", [5e-324, 1e-46, 7e-46, 1e-45, 1e-38, 1e-30, 1e-5])
def test_tiny_temperature_chooses_the_likeliest_token(temperature: float) -> None:
    """Dividing by almost nothing neither overflows nor makes a NaN."""
    logits = random_logits()
    assert Sampler(SamplingParams(temperature=temperature), 0).sample(logits) == int(logits.argmax())


@pytest.mark.parametrize("temperature", [-0.0, 5e-324, 1e-40, 1.2e-38, 1.0, 3.5e38, 1e39, math.nextafter(math.inf, 0)])
@pytest.mark.parametrize(
    "logits",
    [
        random_logits(), torch.zeros(1), torch.tensor([3e38, -3e38, 0.0]), torch.full((500,), -3e38),
        random_logits() * 1e-44,
    ],
    ids=["usual", "one token", "far apart", "all alike", "next to nothing"],
)  # fmt: skip
def test_every_lawful_option_at_its_ends_chooses_a_token(temperature: float, logits: torch.Tensor) -> None:
    """Whatever meets whatever: no NaN, always something left to choose from, nothing that torch raises."""
    for top_k in (0, 1, 500, 501, 1 << 31, 1 << 64):
        for top_p in (5e-324, 1e-45, 0.9, math.nextafter(1, 0), 1.0):
            params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
            assert all(0 <= Sampler(params, seed).sample(logits) < len(logits) for seed in SEED_LIMITS)


def test_a_huge_temperature_draws_from_everything_that_can_be() -> None:
    """Also beyond what float32 can hold: all tokens are alike then, as far as they are numbers of one size."""
    params = SamplingParams(temperature=1e300, top_p=1)
    assert {Sampler(params, seed).sample(torch.tensor([0.0, 5.0, -9.0])) for seed in range(40)} == {0, 1, 2}


def test_tiny_p_still_keeps_the_likeliest_token() -> None:
    """A p that float32 cannot tell from 0 is greedy, not empty."""
    logits = random_logits()
    assert Sampler(SamplingParams(top_p=1e-12), 0).sample(logits) == int(logits.argmax())


def test_many_rare_tokens_count_toward_p() -> None:
    """A thousand tokens that go unsorted still push the running sum up: the second likeliest stays."""
    logits = torch.tensor([0.2 / 1000] * 1000 + [0.2, 0.25, 0.35]).log()
    drawn = {Sampler(SamplingParams(top_p=0.5), seed).sample(logits) for seed in range(60)}
    assert drawn == {1001, 1002}


def test_logits_are_left_as_they_were() -> None:
    """The engine may look at them afterwards."""
    logits = random_logits()
    before = logits.clone()
    Sampler(SamplingParams(temperature=0.7, top_k=5, top_p=0.5), 0).sample(logits)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    "logits",
    [torch.zeros(2, 3), torch.zeros(0), torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.bfloat16)],
)
def test_logits_of_another_shape_or_dtype_are_refused(logits: torch.Tensor) -> None:
    """Lower precision is never silent."""
    with pytest.raises(ShapeError):
        Sampler(SamplingParams(), 0).sample(logits)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error(value: float, temperature: float) -> None:
    """Never a wrong token: a broken partial sum ends the request."""
    logits = random_logits()
    logits[7] = value
    with pytest.raises(NodeFault, match="not finite"):
        Sampler(SamplingParams(temperature=temperature), 0).sample(logits)


def test_large_logits_are_numbers() -> None:
    """A sum that overflows does not make its parts infinite."""
    logits = torch.full((100,), 3e38)
    assert 0 <= Sampler(SamplingParams(), 0).sample(logits) < 100


@given(
    values=st.lists(st.integers(-8, 8), min_size=1, max_size=12),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.integers(0, 14),
    top_p=st.sampled_from([0.05, 0.33, 0.5, 0.9, 0.999, 1.0]),
)
@example(values=[0, 0], temperature=1.0, top_k=0, top_p=0.5)
def test_only_tokens_that_transformers_keeps_are_drawn(
    values: list[int], temperature: float, top_k: int, top_p: float
) -> None:
    """Ties, more tokens wanted than there are, everything off: the same set."""
    logits = torch.tensor(values, dtype=torch.float32)
    scores = TemperatureLogitsWarper(temperature)(None, logits[None])
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    scores = TopPLogitsWarper(top_p)(None, scores)[0] if top_p < 1 else scores[0]
    kept = set(scores.isfinite().nonzero().flatten().tolist())
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    drawn = {Sampler(params, seed).sample(logits) for seed in range(20)}
    assert drawn <= kept
    if len(kept) == 1:
        assert drawn == kept
