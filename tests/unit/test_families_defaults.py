"""Does a config.json that leaves something out, or says it in an old way, mean what it means to transformers?

Does not cover: what is there and wrong (test_families.py).
"""

from __future__ import annotations

import pytest

from tests.support.configurations import QWEN, SMOL, spec_of
from tests.support.random_models import FAMILY_CLASSES
from tests.support.transformers_answers import Theirs


def test_what_a_configuration_leaves_out_is_the_familys_default() -> None:
    """Missing and null are not the same everywhere."""
    assert spec_of(SMOL, num_key_value_heads=...).kv_head_count == 9
    assert spec_of(SMOL, num_key_value_heads=None).kv_head_count == 9
    assert spec_of(SMOL, rms_norm_eps=...).norm_epsilon == 1e-6
    assert not spec_of(SMOL, tie_word_embeddings=...).tied_embeddings
    qwen3 = {**QWEN, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    assert spec_of(qwen3).head_size == 128
    assert spec_of(qwen3, head_dim=16).head_size == 16
    mistral = {**QWEN, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "num_attention_heads": 16}
    assert spec_of(mistral, num_key_value_heads=...).kv_head_count == 8


SIZES = {
    "hidden_size": "hidden_size",
    "intermediate_size": "ffn_size",
    "num_hidden_layers": "layer_count",
    "num_attention_heads": "query_head_count",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_position_count",
}
"""Keys of config.json, and what the spec calls them."""


@pytest.mark.parametrize("family", FAMILY_CLASSES)
def test_a_size_that_a_configuration_leaves_out_is_the_familys_own(family: str, theirs: Theirs) -> None:
    """Missing and null alike: what transformers' class has, which the tensors' shapes then have to bear out."""
    name = FAMILY_CLASSES[family]
    wanted = dict(zip(SIZES, theirs.ask("defaults", name, list(SIZES)), strict=True))
    config = {"architectures": [f"{name}ForCausalLM"], "model_type": family}
    for nulls in ({}, dict.fromkeys(SIZES)):
        spec = spec_of({**config, **nulls})
        for key, ours in SIZES.items():
            assert getattr(spec, ours) == wanted[key], key
    assert spec_of(SMOL, max_position_embeddings=...).max_position_count == 2048


@pytest.mark.parametrize("scaling", ["dynamic", "yarn", "llama3"])
def test_the_context_that_is_left_out_is_what_scaling_begins_with(scaling: str) -> None:
    """Where the trained context follows from max_position_embeddings, its default counts too."""
    parameters = {"rope_type": scaling, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert spec_of(SMOL, max_position_embeddings=..., rope_scaling=parameters).rope.original_position_count == 2048


@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [
        ("LLaMAForCausalLM", "llama"),
        ("LlamaModel", "llama"),
        ("MistralModel", "mistral"),
        ("Qwen2Model", "qwen2"),
        ("Qwen3Model", "qwen3"),
    ],
)
def test_another_name_of_an_architecture_is_known(architecture: str, model_type: str) -> None:
    """The first conversions' spelling, and what AutoModel saves; whether there is a head is for the tensors to say."""
    spec = spec_of(QWEN, architectures=[architecture], model_type=model_type, sliding_window=None)
    assert spec == spec_of(QWEN, architectures=None, model_type=model_type, sliding_window=None)
