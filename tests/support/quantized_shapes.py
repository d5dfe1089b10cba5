"""GGUF files as large as real models, of random blocks in the mixture of Q4_K_M, written at the disk's speed.

    ensure_quantized(path, LLAMA_3_2_3B)     # 2 GB; seconds, and nothing the second time
    largest_tensor_bytes(LLAMA_3_2_3B)       # of such a file: its embedding

Covers: shapes, the mixture, a tokenizer with a token for every id. Does not cover: text that means anything.
Source of the mixture: llama.cpp's quantizer: half of values and downs in Q6_K, and the head.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import gguf
import numpy as np

from tests.support.gguf_models import gguf_name
from tests.support.random_blocks import Bytes, random_blocks
from tests.support.true_shapes import Shape, full_vocabulary

LLAMA_3_2_3B = Shape(
    name="Llama-3.2-3B", hidden=3072, ffn=8192, layers=28, query_heads=24, kv_heads=8, vocabulary=128256,
    positions=8192, rope_theta=500000.0, norm_epsilon=1e-5,
)  # fmt: skip
SMALL = Shape(
    name="a Llama of 24 layers", hidden=1024, ffn=4096, layers=24, query_heads=16, kv_heads=4, vocabulary=32768,
    positions=2048, rope_theta=10000.0, norm_epsilon=1e-5,
)  # fmt: skip
"""Its file has 247 MB, nine times its largest tensor."""
SUPERBLOCK = 256
SUPERBLOCK_BYTES = {name: gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1] for name in ("Q4_K", "Q6_K")}
POOL_BLOCKS = 1 << 16
"""Random blocks of each encoding, in which each matrix begins at another place."""
DEVIATION = 0.02


def ensure_quantized(path: Path, shape: Shape, pool_blocks: int = POOL_BLOCKS) -> bool:
    """Write the file unless it is there; return whether it was written. Half a file never stands under its name."""
    if path.is_file():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    generator = np.random.default_rng(7)
    pools = {
        name: random_blocks(name, pool_blocks, SUPERBLOCK, generator, deviation=DEVIATION) for name in SUPERBLOCK_BYTES
    }
    writer = _described(unfinished, shape)
    tensors = [(name, size) for name, size in shape.tensors() if name != "lm_head.weight"]  # tied to the embedding
    for name, size in tensors:
        kind = encoding_of(name, shape)
        stored = size if kind == "F32" else (*size[:-1], size[-1] // SUPERBLOCK * SUPERBLOCK_BYTES[kind])
        dtype = np.dtype(np.float32 if kind == "F32" else np.uint8)
        writer.add_tensor_info(
            gguf_name(name), stored, dtype, math.prod(stored) * dtype.itemsize, gguf.GGMLQuantizationType[kind]
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, size in tensors:
        kind = encoding_of(name, shape)
        if kind == "F32":
            writer.write_tensor_data(np.ones(size, np.float32))
        else:
            writer.write_tensor_data(_run(pools[kind], math.prod(size) // SUPERBLOCK, generator))
    writer.close()
    os.rename(unfinished, path)
    return True


def largest_tensor_bytes(shape: Shape) -> int:
    """Return the bytes of the largest tensor of such a file."""
    matrices = [(name, size) for name, size in shape.tensors() if len(size) > 1 and name != "lm_head.weight"]
    return max(math.prod(size) // SUPERBLOCK * SUPERBLOCK_BYTES[encoding_of(name, shape)] for name, size in matrices)


def encoding_of(name: str, shape: Shape) -> str:
    """Return what a Q4_K_M file has a tensor in."""
    if "norm" in name:
        return "F32"
    if "v_proj" in name or "down_proj" in name:
        layer, eighth = int(name.split(".")[2]), shape.layers // 8
        return "Q6_K" if layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2 else "Q4_K"
    return "Q6_K" if "embed_tokens" in name else "Q4_K"


def _run(pool: Bytes, block_count: int, generator: np.random.Generator) -> Bytes:
    """Return so many blocks, from some place of the pool on and round it."""
    first = int(generator.integers(len(pool)))
    repeats = -(-(first + block_count) // len(pool))
    return np.concatenate([pool] * repeats)[first : first + block_count].reshape(-1)


def _described(path: Path, shape: Shape) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.positions)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.query_heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_theta)
    tokens, merges = full_vocabulary(shape.vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * len(tokens))
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return writer
