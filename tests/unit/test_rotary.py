"""Are cosines and sines those of transformers, for every rope type, position and chunk?

Covers: shardnode/work/rotary.py on the specs that configurations give. Does not cover: reading configurations
(test_families_rope.py), applying the tables (test_kernels.py).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from common.model.model_spec import RopeSpec
from coordinator.checkpoints.model_config import spec_from_config
from shardnode.work.rotary import Rotary, inverse_frequencies
from tests.support.random_models import ROPES, build

CPU = torch.device("cpu")
HEAD_SIZES = (16, 64, 128)


def config_of(name: str, head_size: int, theta: float = 10000.0) -> LlamaConfig:
    """Return the configuration of a model with the rope of that name, trained for 256 positions."""
    config = build(layers=1, rope=ROPES[name], theta=theta, head_size=head_size, vocab_size=260).config
    assert isinstance(config, LlamaConfig)
    return config


def rope_of(config: LlamaConfig) -> RopeSpec:
    """Return what the product makes of a configuration."""
    settings: dict[str, Any] = {**config.to_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    return spec_from_config(settings).rope


def reference(config: LlamaConfig, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosine and sine of transformers, each [row_count, 1, head_size]."""
    rotary = LlamaRotaryEmbedding(config)
    cosine, sine = rotary(torch.zeros(1), positions[None])
    return cosine[0][:, None], sine[0][:, None]


@pytest.mark.parametrize("head_size", HEAD_SIZES)
@pytest.mark.parametrize("name", ROPES)
def test_tables_are_those_of_transformers_within_the_trained_context(name: str, head_size: int) -> None:
    """256 positions at once, each rope type, bit for bit what a whole prompt gets there."""
    config = config_of(name, head_size)
    cosine, sine = Rotary(rope_of(config), head_size, CPU).tables([(0, 256, 256)])
    expected = reference(config, torch.arange(256))
    assert cosine.shape == sine.shape == (256, 1, head_size)
    torch.testing.assert_close((cosine, sine), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("theta", [500.0, 10000.0, 5e5])
@pytest.mark.parametrize("name", [name for name in ROPES if name != "default"])
def test_frequencies_are_those_of_transformers_init_functions(name: str, theta: float) -> None:
    """Each function of ROPE_INIT_FUNCTIONS that we support, at several bases and beyond the trained context."""
    config = config_of(name, 64, theta)
    init = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]]
    for length in (10, 256, 257, 1000, 5000):
        expected, factor = init(config, CPU, seq_len=length)
        torch.testing.assert_close(inverse_frequencies(rope_of(config), 64, length), expected, atol=0, rtol=2e-7)
        assert rope_of(config).attention_factor == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("name", ["default", "linear", "yarn-mscale", "llama3"])
def test_far_positions_are_those_of_transformers(name: str) -> None:
    """Positions in the tens of thousands lose no more precision here than there."""
    config = config_of(name, 64)
    positions = torch.arange(40_000, 40_016)
    tables = Rotary(rope_of(config), 64, CPU).tables([(40_000, 16, 40_016)])
    torch.testing.assert_close(tables, reference(config, positions), atol=1e-6, rtol=1e-6)


def test_dynamic_scaling_follows_the_context_of_each_sequence() -> None:
    """Up to the trained context nothing is stretched; beyond it the length counts, for each run its own."""
    config = config_of("dynamic", 16)
    rotary = Rotary(rope_of(config), 16, CPU)
    assert torch.equal(inverse_frequencies(rope_of(config), 16, 3), inverse_frequencies(rope_of(config), 16, 256))
    long = reference(config, torch.arange(400))
    short = reference(config, torch.arange(8))
    cosine, sine = rotary.tables([(390, 10, 400), (0, 8, 8)])
    torch.testing.assert_close((cosine[:10], sine[:10]), (long[0][390:], long[1][390:]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close((cosine[10:], sine[10:]), short, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ROPES)
def test_a_prompt_in_chunks_gets_the_tables_of_the_whole_prompt(name: str) -> None:
    """Rows of several runs lie one after another, each at its own positions."""
    rotary = Rotary(rope_of(config_of(name, 16)), 16, CPU)
    whole = rotary.tables([(0, 30, 30)])
    parts = rotary.tables([(20, 10, 30), (0, 5, 30), (29, 1, 30)])
    rows = [*range(20, 30), *range(5), 29]
    assert all(torch.equal(part, table[rows]) for part, table in zip(parts, whole, strict=True))


def test_frequency_factors_divide() -> None:
    """What a GGUF carries per frequency divides that frequency."""
    factors = (1.0, 2.0, 4.0, 8.0)
    plain = inverse_frequencies(RopeSpec(), 8, 1)
    scaled = inverse_frequencies(RopeSpec(rope_type="factors", frequency_factors=factors), 8, 1)
    torch.testing.assert_close(scaled * torch.tensor(factors), plain)


def test_the_plain_rotation_is_the_papers() -> None:
    """theta to the power of -2i/d, times the position; cosine and sine of it in both halves."""
    cosine, sine = Rotary(RopeSpec(theta=100.0), 4, CPU).tables([(3, 1, 4)])
    angles = [3.0, 3 * 100 ** (-2 / 4)] * 2
    torch.testing.assert_close(cosine[0, 0], torch.tensor([math.cos(angle) for angle in angles]))
    torch.testing.assert_close(sine[0, 0], torch.tensor([math.sin(angle) for angle in angles]))
