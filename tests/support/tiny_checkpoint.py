"""A tiny random Llama with a tokenizer, written without torch and transformers, for tests of whole programs.

    model = write_tiny_checkpoint(tmp_path / "model")

Covers: config.json, safetensors (one file or two shards) or `.bin`, tokenizer.json. Loads in milliseconds.
Does not cover: other families and what answers should be (random_models.py, transformers_answers.py).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.weights.stored_numbers import Floats
from tests.support.byte_tokenizer import write_byte_tokenizer
from tests.support.random_models import random_numbers, save_bin
from tests.support.safetensors_files import write_tensors

HIDDEN_SIZE, FFN_SIZE, VOCAB_SIZE, HEAD_SIZE = 64, 128, 320, 16
QUERY_HEADS, KV_HEADS = 4, 2
CONTEXT = 32768
"""Long enough that an answer lasts until a test has done to it what it wants."""
BOS_ID = 1

Layout = Literal["one", "sharded", "bin"]


def write_tiny_checkpoint(directory: Path, *, layers: int = 2, seed: int = 0, layout: Layout = "one") -> Path:
    """Write a model of `layers` layers and return its directory; another seed makes another model.

    A test that wants a `.bin` is skipped without torch.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(layers, seed)
    if layout == "one":
        write_tensors(tensors, directory / "model.safetensors")
    elif layout == "bin":
        save_bin(tensors, directory / "pytorch_model.bin")
    else:
        _save_shards(directory, tensors)
    (directory / "config.json").write_text(json.dumps(_config(layers)))
    write_byte_tokenizer(directory, VOCAB_SIZE)
    return directory


def change_config(directory: Path, **changes: Any) -> None:
    """Set keys of a model's config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _save_shards(directory: Path, tensors: dict[str, Floats]) -> None:
    names = list(tensors)
    half = len(names) // 2
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:half], names[half:]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        write_tensors({name: tensors[name] for name in part}, directory / file)
        weight_map.update(dict.fromkeys(part, file))
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _tensors(layers: int, seed: int) -> dict[str, Floats]:
    generator = np.random.Philox(key=seed)

    def matrix(rows: int, columns: int) -> Floats:
        return (random_numbers(generator, (rows, columns)) * (1.5 / math.sqrt(columns))).astype(np.float32)

    def norm() -> Floats:
        return (1 + 0.2 * random_numbers(generator, (HIDDEN_SIZE,))).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": matrix(VOCAB_SIZE, HIDDEN_SIZE),
        "model.norm.weight": norm(),
        "lm_head.weight": matrix(VOCAB_SIZE, HIDDEN_SIZE),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        tensors |= {
            f"{prefix}input_layernorm.weight": norm(),
            f"{prefix}post_attention_layernorm.weight": norm(),
            f"{prefix}self_attn.q_proj.weight": matrix(QUERY_HEADS * HEAD_SIZE, HIDDEN_SIZE),
            f"{prefix}self_attn.k_proj.weight": matrix(KV_HEADS * HEAD_SIZE, HIDDEN_SIZE),
            f"{prefix}self_attn.v_proj.weight": matrix(KV_HEADS * HEAD_SIZE, HIDDEN_SIZE),
            f"{prefix}self_attn.o_proj.weight": matrix(HIDDEN_SIZE, QUERY_HEADS * HEAD_SIZE),
            f"{prefix}mlp.gate_proj.weight": matrix(FFN_SIZE, HIDDEN_SIZE),
            f"{prefix}mlp.up_proj.weight": matrix(FFN_SIZE, HIDDEN_SIZE),
            f"{prefix}mlp.down_proj.weight": matrix(HIDDEN_SIZE, FFN_SIZE),
        }
    return tensors


def _config(layers: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": FFN_SIZE,
        "num_hidden_layers": layers,
        "num_attention_heads": QUERY_HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_SIZE,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "bos_token_id": BOS_ID,
        "eos_token_id": 2,
    }
