"""Writes a random model as a GGUF file, the way llama.cpp's converter lays it out.

Covers: the four families, permuted rows of q and k for the llama architecture, rope_freqs for llama3 scaling,
quantized matrices, a byte-level tokenizer.
Does not cover: dynamic scaling and sliding windows, which GGUF cannot say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from common.weights.stored_numbers import STORED_NAMES, widened
from tests.support.byte_tokenizer import CHAT_TEMPLATE, SPECIAL_TOKENS, byte_vocabulary
from tests.support.model_tensors import RandomModel
from tests.support.random_blocks import Bytes, EncodedRows

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_NAMES = (
    ("model.embed_tokens.", "token_embd."),
    ("model.norm.", "output_norm."),
    ("lm_head.", "output."),
    ("model.layers.", "blk."),
    ("self_attn.q_norm.", "attn_q_norm."),
    ("self_attn.k_norm.", "attn_k_norm."),
    ("self_attn.q_proj.", "attn_q."),
    ("self_attn.k_proj.", "attn_k."),
    ("self_attn.v_proj.", "attn_v."),
    ("self_attn.o_proj.", "attn_output."),
    ("mlp.gate_proj.", "ffn_gate."),
    ("mlp.up_proj.", "ffn_up."),
    ("mlp.down_proj.", "ffn_down."),
    ("post_attention_layernorm.", "ffn_norm."),
    ("input_layernorm.", "attn_norm."),
)
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def write_gguf(
    model: RandomModel, path: Path, *, quantization: str | None = None, tensors_per_part: int = 0,
    blocks: Mapping[str, EncodedRows] | None = None,
) -> Path:  # fmt: skip
    """Write `model` to `path` and return it: vectors as float32, matrices quantized or in their dtype.

    Args: tensors_per_part: split into parts of so many tensors, the first of which is returned; 0: one file.
    blocks: of matrices, by name, that are written as they are (random_blocks.py), whatever the model's tensors say.
    """
    config = model.config
    architecture = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=tensors_per_part)
    _add_sizes(writer, config)
    _add_rope(writer, config)
    _add_tokenizer(writer, config["vocab_size"])
    for name, tensor in model.tensors.items():
        if blocks is not None and name in blocks:
            _add_blocks(writer, name, *blocks[name], config if architecture == "llama" else None)
            continue
        values = widened(tensor)
        if architecture == "llama" and ".q_proj." in name:
            values = interleave(values, config["num_attention_heads"])
        if architecture == "llama" and ".k_proj." in name:
            values = interleave(values, config["num_key_value_heads"])
        matrix_type = quantization or _TYPES[STORED_NAMES[tensor.dtype]]
        kind = gguf.GGMLQuantizationType["F32" if values.ndim == 1 else matrix_type]
        writer.add_tensor(gguf_name(name), gguf.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return min(path.parent.glob(f"{path.stem}-00001-of-*{path.suffix}")) if tensors_per_part else path


def _add_blocks(
    writer: gguf.GGUFWriter, name: str, encoding: str, rows: Bytes, config: Mapping[str, Any] | None
) -> None:
    """Write a matrix's blocks. Args: config: of a model whose rows of queries and keys are interleaved."""
    if config is not None and ".q_proj." in name:
        rows = interleave(rows, config["num_attention_heads"])
    if config is not None and ".k_proj." in name:
        rows = interleave(rows, config["num_key_value_heads"])
    kind = gguf.GGMLQuantizationType[encoding]
    writer.add_tensor(gguf_name(name), np.ascontiguousarray(rows), raw_dtype=kind)


def gguf_name(name: str) -> str:
    """Return GGUF's name of a Hugging Face tensor."""
    for ours, theirs in _NAMES:
        name = name.replace(ours, theirs)
    return name


def interleave(rows: npt.NDArray[Any], head_count: int) -> npt.NDArray[Any]:
    """Return rows of q or k with the two halves of every head interleaved."""
    halves = rows.reshape(head_count, 2, rows.shape[0] // head_count // 2, *rows.shape[1:])
    rows_of_pairs: npt.NDArray[Any] = halves.swapaxes(1, 2).reshape(rows.shape)
    return rows_of_pairs


def llama3_frequency_factors(rope: dict[str, Any], head_size: int) -> list[float]:
    """Return by what each rotary frequency is divided in llama3 scaling."""
    factors = []
    original, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    for i in range(0, head_size, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / head_size)
        smooth = (original / wavelength - low) / (high - low)
        smooth = min(max(smooth, 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return factors


def _add_sizes(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if config["head_dim"] * config["num_attention_heads"] != config["hidden_size"] or config["model_type"] == "qwen3":
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])


def _add_rope(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    rope = config["rope_parameters"]
    rope_type = rope["rope_type"]
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope_type in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope_type))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope_type == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope_type == "llama3":
        factors = llama3_frequency_factors(rope, config["head_dim"])
        writer.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))
    if rope_type == "dynamic" or config.get("sliding_window"):
        raise ValueError("GGUF can hold neither dynamic rope scaling nor a sliding window")


def _add_tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    tokens, merges = byte_vocabulary(vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    special, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    writer.add_token_types([special if token in SPECIAL_TOKENS else normal for token in tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
