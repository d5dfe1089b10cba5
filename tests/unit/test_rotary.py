"""Are cosines and sines those of transformers, for every rope type, position and chunk?

Covers: shardnode/work/rotary.py on the specs that configurations give. Does not cover: reading configurations
(test_families_rope.py), applying the tables (tests/contract/test_backends.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from common.model.model_spec import RopeSpec
from common.weights.stored_numbers import Floats
from coordinator.checkpoints.model_config import spec_from_config
from shardnode.work.rotary import Rotary, inverse_frequencies
from tests.support.random_models import ROPES, build
from tests.support.transformers_answers import Theirs, numbers

HEAD_SIZES = (16, 64, 128)
TRAINED = 256
SOME = (0, 1, 2, 7, 63, 64, 100, 129, 200, 255)
LENGTHS = (10, 256, 257, 1000, 5000)
Tables = tuple[Floats, Floats]


def config_of(name: str, head_size: int, theta: float = 10000.0) -> dict[str, Any]:
    """Return the configuration of a model with the rope of that name, trained for 256 positions."""
    return build(layers=1, rope=ROPES[name], theta=theta, head_size=head_size, vocab_size=260).config


def rope_of(config: dict[str, Any]) -> RopeSpec:
    """Return what the product makes of a configuration."""
    return spec_from_config(config).rope


def reference(theirs: Theirs, config: dict[str, Any], positions: Sequence[int], length: int) -> Tables:
    """Return cosine and sine of transformers at some positions, each [row_count, head_size / 2]."""
    said = theirs.ask("rotary_tables", config, list(positions), length)
    return numbers(said["cosine"]), numbers(said["sine"])


def halves(tables: Tables) -> Tables:
    """Return cosine and sine, each [row_count, head_size / 2]: both halves hold them, the first of sines negated."""
    cosine, sine = tables
    half = cosine.shape[1] // 2
    assert np.array_equal(cosine[:, :half], cosine[:, half:])
    assert np.array_equal(-sine[:, :half], sine[:, half:])
    return cosine[:, half:], sine[:, half:]


def assert_close(ours: Tables, wanted: Tables) -> None:
    """Fail unless both tables are the same but for rounding."""
    for one, other in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("head_size", HEAD_SIZES)
@pytest.mark.parametrize("name", ROPES)
def test_tables_are_those_of_transformers_within_the_trained_context(name: str, head_size: int, theirs: Theirs) -> None:
    """What a whole prompt of 256 positions gets, at some of them from transformers, at all from its frequencies."""
    config = config_of(name, head_size)
    ours = Rotary(rope_of(config), head_size).tables(0, TRAINED, TRAINED)
    assert ours[0].shape == ours[1].shape == (TRAINED, head_size)
    ours = halves(ours)
    rows = list(SOME)
    assert_close((ours[0][rows], ours[1][rows]), reference(theirs, config, SOME, TRAINED))
    said = theirs.ask("rotary_tables", config, rows, TRAINED)
    angles = (np.arange(TRAINED, dtype=np.float32)[:, None] * numbers(said["inverse"])).astype(np.float64)
    assert_close(ours, (np.cos(angles) * said["factor"], np.sin(angles) * said["factor"]))


@pytest.mark.parametrize("theta", [500.0, 10000.0, 5e5])
@pytest.mark.parametrize("name", [name for name in ROPES if name != "default"])
def test_frequencies_are_those_of_transformers_init_functions(name: str, theta: float, theirs: Theirs) -> None:
    """Each function of ROPE_INIT_FUNCTIONS that we support, at several bases and beyond the trained context."""
    config = config_of(name, 64, theta)
    said = theirs.ask("frequencies", config, list(LENGTHS))
    for length, expected in zip(LENGTHS, numbers(said["inverse"]), strict=True):
        np.testing.assert_allclose(inverse_frequencies(rope_of(config), 64, length), expected, atol=0, rtol=2e-7)
    assert rope_of(config).attention_factor == pytest.approx(said["factor"], abs=1e-12)


@pytest.mark.parametrize("name", ["default", "linear", "yarn-mscale", "llama3"])
def test_far_positions_are_those_of_transformers(name: str, theirs: Theirs) -> None:
    """Positions in the tens of thousands lose no more precision here than there."""
    config = config_of(name, 64)
    expected = reference(theirs, config, range(40_000, 40_016), 40_016)
    assert_close(halves(Rotary(rope_of(config), 64).tables(40_000, 16, 40_016)), expected)


def test_dynamic_scaling_follows_the_context_of_each_sequence(theirs: Theirs) -> None:
    """Up to the trained context nothing is stretched; beyond it the length counts, for each run its own."""
    config = config_of("dynamic", 16)
    long, short = reference(theirs, config, range(390, 400), 400), reference(theirs, config, range(8), 8)
    rope = rope_of(config)
    assert np.array_equal(inverse_frequencies(rope, 16, 3), inverse_frequencies(rope, 16, TRAINED))
    rotary = Rotary(rope, 16)
    assert_close(halves(rotary.tables(390, 10, 400)), long)
    assert_close(halves(rotary.tables(0, 8, 8)), short)


@pytest.mark.parametrize("name", ROPES)
def test_a_prompt_in_chunks_gets_the_tables_of_the_whole_prompt(name: str) -> None:
    """Each run of rows at its own positions."""
    rotary = Rotary(rope_of(config_of(name, 16)), 16)
    whole = rotary.tables(0, 30, 30)
    for first, count in ((20, 10), (0, 5), (29, 1)):
        parts = rotary.tables(first, count, 30)
        assert all(np.array_equal(part, one[first : first + count]) for part, one in zip(parts, whole, strict=True))


def test_frequency_factors_divide() -> None:
    """What a GGUF carries per frequency divides that frequency."""
    factors = (1.0, 2.0, 4.0, 8.0)
    plain = inverse_frequencies(RopeSpec(), 8, 1)
    scaled = inverse_frequencies(RopeSpec(rope_type="factors", frequency_factors=factors), 8, 1)
    np.testing.assert_allclose(scaled * np.array(factors), plain, rtol=1e-6)


def test_the_plain_rotation_is_the_papers() -> None:
    """theta to the power of -2i/d, times the position; cosine and sine of it in both halves."""
    cosine, sine = halves(Rotary(RopeSpec(theta=100.0), 4).tables(3, 1, 4))
    angles = [3.0, 3 * 100 ** (-2 / 4)]
    np.testing.assert_allclose(cosine[0], [math.cos(angle) for angle in angles], rtol=1e-5)
    np.testing.assert_allclose(sine[0], [math.sin(angle) for angle in angles], rtol=1e-5)
