"""Configurations for tests: two of the wild, and how one is read or refused.

Does not cover: models and weights (random_models.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from common.errors import ModelError, UnsupportedModel
from common.model.model_spec import ModelSpec
from coordinator.checkpoints.model_config import spec_from_config
from tests.support.model_tensors import RandomModel
from tests.support.random_models import write_config

SMOL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "rope_theta": 100000,
    "rope_scaling": None,
    "rope_interleaved": False,
    "is_llama_config": True,
    "pretraining_tp": 1,
    "attention_bias": False,
    "initializer_range": 0.04,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    "use_cache": True,
    "bos_token_id": 1,
}
"""As SmolLM2-135M-Instruct has it."""

QWEN: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "sliding_window": 32,
}


def spec_of(base: dict[str, Any], **changes: Any) -> ModelSpec:
    """Return the spec of `base` with some keys changed; `...` takes a key away."""
    return spec_from_config({k: v for k, v in {**base, **changes}.items() if v is not ...})


def refusal(base: dict[str, Any], kind: type[ModelError] = UnsupportedModel, **changes: Any) -> str:
    """Return the one line with which `base` with some keys changed is refused."""
    with pytest.raises(kind) as caught:
        spec_of(base, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def saved_spec(model: RandomModel, directory: Path, spelling: Literal[4, 5]) -> ModelSpec:
    """Return the spec of `model`'s configuration, written to a file and read again."""
    write_config(directory, model.config, spelling=spelling)
    return spec_from_config(json.loads((directory / "config.json").read_text()))
