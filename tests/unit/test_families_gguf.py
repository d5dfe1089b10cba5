"""Does GGUF metadata become the same maths as the config.json it was converted from, or a refusal that names the key?

Does not cover: the file's layout and tensors (test_checkpoints.py, test_checkpoints_hostile.py).
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from common.errors import CheckpointError, ModelError, UnsupportedModel
from common.model.model_spec import ModelSpec
from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.checkpoints.gguf_metadata import family_from_gguf, spec_from_gguf
from tests.support.random_models import FAMILIES, ROPES, build, save

LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.type": "model",
    "general.name": "A model",
    "general.file_type": 3,
    "llama.block_count": 2,
    "llama.context_length": 256,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": 16,
    "llama.rope.freq_base": 50000.0,
    "llama.vocab_size": 320,
    "tokenizer.ggml.model": "gpt2",
}


def spec_of(factors: tuple[float, ...] = (), **changes: Any) -> ModelSpec:
    """Return the spec of LLAMA with some keys (dots as double underscores) changed; `...` takes a key away."""
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    metadata = {k: v for k, v in {**LLAMA, **changed}.items() if v is not ...}
    return spec_from_gguf(family_from_gguf(metadata), metadata, frozenset(), factors)


def refusal(kind: type[ModelError] = UnsupportedModel, factors: tuple[float, ...] = (), **changes: Any) -> str:
    """Return the one line with which LLAMA with some keys changed is refused."""
    with pytest.raises(kind) as caught:
        spec_of(factors, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rope", ["default", "linear", "yarn"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_model_keeps_its_maths(tmp_path: Path, family: str, rope: str, tied: bool) -> None:
    """GGUF and config.json of one model give one spec, up to float32 and Mistral's name."""
    model = build(family, rope=ROPES[rope], tied=tied, layers=1)
    there = open_checkpoint(save(model, tmp_path / "hf")).spec
    here = open_checkpoint(save(model, tmp_path / "gguf", "gguf")).spec
    assert here.norm_epsilon == pytest.approx(there.norm_epsilon, rel=1e-6)
    assert here.rope.attention_factor == pytest.approx(there.rope.attention_factor, rel=1e-12)
    same = {"family": here.family, "norm_epsilon": here.norm_epsilon}
    assert dataclasses.replace(there, **same) == here  # type: ignore[arg-type]
    assert here.family == ("llama" if family == "mistral" else family)


def test_what_gguf_leaves_out_has_a_meaning() -> None:
    """As many KV heads as query heads, base 10000, the vocabulary of the token list."""
    spec = spec_of(llama__attention__head_count_kv=..., llama__rope__freq_base=..., llama__rope__dimension_count=...)
    assert (spec.kv_head_count, spec.rope.theta, spec.head_size) == (4, 10000.0, 16)
    assert spec_of(llama__vocab_size=..., tokenizer__ggml__tokens=["a", "b"]).vocab_size == 2


def test_of_two_sizes_of_the_vocabulary_the_one_counts_that_the_embedding_bears_out() -> None:
    """The list of tokens, as for llama.cpp, or the key where the list is shorter than the matrix."""
    metadata = {**LLAMA, "tokenizer.ggml.tokens": ["a"] * 321}
    family = family_from_gguf(metadata)
    for row_count, wanted in ((321, 321), (320, 320), (0, 320), (999, 320)):
        assert spec_from_gguf(family, metadata, frozenset(), (), row_count).vocab_size == wanted


def test_a_list_per_layer_counts_when_it_is_one_number() -> None:
    """Some converters write every layer's heads; layers that differ are refused."""
    assert spec_of(llama__attention__head_count_kv=[2, 2]).kv_head_count == 2
    assert "head_count_kv" in refusal(llama__attention__head_count_kv=[2, 4])
    assert "feed_forward_length" in refusal(llama__feed_forward_length=[])


def test_linear_scaling_is_known_by_its_old_key_too() -> None:
    """rope.scale_linear, or a factor without a type; a type of none switches it off."""
    for changes in (
        {"llama__rope__scale_linear": 4.0},
        {"llama__rope__scaling__factor": 4.0},
        {"llama__rope__scaling__factor": 4.0, "llama__rope__scaling__type": "linear"},
    ):
        rope = spec_of(**changes).rope
        assert (rope.rope_type, rope.factor) == ("linear", 4.0)
    assert spec_of(llama__rope__scaling__factor=4.0, llama__rope__scaling__type="none").rope.rope_type == "default"
    assert spec_of(llama__rope__scaling__type="linear").rope.rope_type == "default"


def test_yarn_stretches_the_context_and_scales_by_the_factor() -> None:
    """The attention factor follows from the stretch, as in config.json."""
    spec = spec_of(llama__rope__scaling__type="yarn", llama__rope__scaling__factor=8.0,
                   llama__rope__scaling__original_context_length=64)  # fmt: skip
    assert spec.max_position_count == 512
    assert spec.rope.attention_factor == pytest.approx(0.1 * math.log(8.0) + 1)
    assert (spec.rope.beta_fast, spec.rope.beta_slow, spec.rope.original_position_count) == (32.0, 1.0, 64)


def test_frequency_factors_come_with_no_other_scaling() -> None:
    """One factor per frequency; together with a scaling type they are refused."""
    factors = tuple(float(i + 1) for i in range(8))
    assert spec_of(factors).rope.frequency_factors == factors
    assert "rope_freqs" in refusal(factors=factors, llama__rope__scaling__factor=2.0)
    assert "7 rotary frequency factors" in refusal(factors=factors[:7])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.expert_count", 8),
        ("llama.attention.clamp_kqv", 8.0),
        ("llama.attention.sliding_window", 64),
        ("llama.attention.value_length", 32),
        ("llama.attention.causal", False),
        ("llama.rope.dimension_count", 8),
        ("llama.rope.scaling.type", "longrope"),
        ("llama.rope.scaling.attn_factor", 2.0),
        ("llama.rope.scaling.yarn_log_multiplier", 0.1),
        ("llama.logit_scale", 0.5),
        ("llama.something_new", "x"),
        ("general.architecture", "gemma2"),
        ("general.type", "adapter"),
        ("llama.rope.scaling.factor", 0.25),
    ],
)
def test_metadata_that_changes_the_maths_is_refused_by_name(key: str, value: object) -> None:
    """Known or not: what is not computed is never ignored."""
    message = refusal(**{key.replace(".", "__"): value})
    assert str(value) in message or key.split(".")[-1] in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.expert_count", 0),
        ("llama.attention.causal", True),
        ("llama.attention.sliding_window", 256),
        ("llama.attention.key_length", 16),
        ("llama.rope.scaling.finetuned", True),
        ("llama.logit_scale", 1.0),
        ("general.quantized_by", "someone"),
        ("quantize.imatrix.file", "x.dat"),
        ("split.count", 3),
    ],
)
def test_metadata_that_changes_nothing_is_no_hindrance(key: str, value: object) -> None:
    """Neutral values leave the spec as it is."""
    assert spec_of(**{key.replace(".", "__"): value}) == spec_of()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.architecture", ...),
        ("general.architecture", 3),
        ("llama.block_count", ...),
        ("llama.block_count", "2"),
        ("llama.attention.head_count", 0),
        ("llama.attention.layer_norm_rms_epsilon", float("nan")),
        ("llama.vocab_size", ...),
        ("llama.rope.freq_base", "big"),
    ],
)
def test_malformed_metadata_is_refused_by_its_key(key: str, value: object) -> None:
    """Missing, of a wrong type, or out of range."""
    assert key.removeprefix("llama.") in refusal(CheckpointError, **{key.replace(".", "__"): value})
