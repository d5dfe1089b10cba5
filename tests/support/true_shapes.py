"""Checkpoints as large as real models, of random weights, written at the disk's speed and the same every time.

    ensure_checkpoint(directory, OPEN_LLAMA_3B)     # 6.9 GB in float16; seconds, and nothing the second time

Covers: the true shapes of open_llama_3b_v2 and Llama-3-8B, weights whose logits differ from token to token, a
tokenizer with a token for every id. Half a checkpoint never stands under its name.
Does not cover: text that means anything; slices (coordinator/slicing/).

Weights are runs of one block of normal numbers, each tensor's from another place of it: making billions of random
numbers would take minutes. With a deviation of 0.02 every layer adds to the residual stream about what a layer before
it added, so all of them matter to the answer.
Sources of the shapes: the models' own config.json.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from tests.support.byte_tokenizer import byte_vocabulary, save_byte_level

SEED = 20_240_607
DEVIATION = 0.02
BLOCK_ITEMS = 1 << 25
ITEM_BYTES = 2
_BYTE_VOCABULARY = 935
"""As many tokens as tests/support/byte_tokenizer.py has; the rest are never made from text, only written as text."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers of a Llama."""

    name: str
    hidden: int
    ffn: int
    layers: int
    query_heads: int
    kv_heads: int
    vocabulary: int
    positions: int
    rope_theta: float
    norm_epsilon: float

    @property
    def head_size(self) -> int:
        return self.hidden // self.query_heads

    @property
    def byte_count(self) -> int:
        return ITEM_BYTES * sum(math.prod(shape) for _, shape in self.tensors())

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield every tensor's name and shape in the order of the file."""
        rows, kv_rows = self.query_heads * self.head_size, self.kv_heads * self.head_size
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            start = f"model.layers.{layer}"
            yield f"{start}.input_layernorm.weight", (self.hidden,)
            yield f"{start}.self_attn.q_proj.weight", (rows, self.hidden)
            yield f"{start}.self_attn.k_proj.weight", (kv_rows, self.hidden)
            yield f"{start}.self_attn.v_proj.weight", (kv_rows, self.hidden)
            yield f"{start}.self_attn.o_proj.weight", (self.hidden, rows)
            yield f"{start}.post_attention_layernorm.weight", (self.hidden,)
            yield f"{start}.mlp.gate_proj.weight", (self.ffn, self.hidden)
            yield f"{start}.mlp.up_proj.weight", (self.ffn, self.hidden)
            yield f"{start}.mlp.down_proj.weight", (self.hidden, self.ffn)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    def config(self) -> dict[str, Any]:
        """Return config.json."""
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": self.hidden,
            "intermediate_size": self.ffn, "num_hidden_layers": self.layers,
            "num_attention_heads": self.query_heads, "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary, "max_position_embeddings": self.positions,
            "rms_norm_eps": self.norm_epsilon, "rope_theta": self.rope_theta, "hidden_act": "silu",
            "tie_word_embeddings": False, "torch_dtype": "float16", "attention_bias": False, "mlp_bias": False,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip


OPEN_LLAMA_3B = Shape(
    name="open_llama_3b_v2", hidden=3200, ffn=8640, layers=26, query_heads=32, kv_heads=32, vocabulary=32000,
    positions=2048, rope_theta=10000.0, norm_epsilon=1e-6,
)  # fmt: skip
LLAMA_3_8B = Shape(
    name="Llama-3-8B", hidden=4096, ffn=14336, layers=32, query_heads=32, kv_heads=8, vocabulary=128256,
    positions=8192, rope_theta=500000.0, norm_epsilon=1e-5,
)  # fmt: skip
LLAMA_3_1B = Shape(
    name="Llama-3.2-1B with 32,000 tokens", hidden=2048, ffn=8192, layers=16, query_heads=32, kv_heads=8,
    vocabulary=32000, positions=2048, rope_theta=500000.0, norm_epsilon=1e-5,
)  # fmt: skip
"""Its real vocabulary has 128,256: a gigabyte more on disk, of which no node holds any. It ties its embeddings, too."""


def ensure_checkpoint(directory: Path, shape: Shape) -> bool:
    """Write the checkpoint unless it is there; return whether it was written.

    An interrupted one is begun again: everything is written beside `directory`, and renamed when it is complete.
    """
    if (directory / "config.json").is_file():
        return False
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _write_weights(unfinished / "model.safetensors", shape)
    write_full_tokenizer(unfinished, shape.vocabulary)
    (unfinished / "config.json").write_text(json.dumps(shape.config(), indent=1), encoding="utf-8")
    os.rename(unfinished, directory)
    return True


def write_full_tokenizer(directory: Path, vocab_size: int) -> None:
    """Write a byte-level tokenizer.json in which every id is a token; text uses the first 935 of them."""
    save_byte_level(directory, *full_vocabulary(vocab_size))


def full_vocabulary(vocab_size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Return a token for every id, and merges."""
    tokens, merges = byte_vocabulary(min(vocab_size, _BYTE_VOCABULARY))
    tokens += [f"Ġw{number}" for number in range(len(tokens), vocab_size)]  # Ġ is a space among byte-level letters
    return tokens, merges


def _write_weights(path: Path, shape: Shape) -> None:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, tensor_shape in shape.tensors():
        stop = position + math.prod(tensor_shape) * ITEM_BYTES
        entries[name] = {"dtype": "F16", "shape": list(tensor_shape), "data_offsets": [position, stop]}
        position = stop
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    random = numpy.random.default_rng(SEED)
    block = (random.standard_normal(BLOCK_ITEMS, dtype=numpy.float32) * DEVIATION).astype(numpy.float16)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _, tensor_shape in shape.tensors():
            if len(tensor_shape) == 1:
                file.write(numpy.ones(tensor_shape, dtype=numpy.float16).tobytes())
            else:
                _write_matrix(file.write, block, math.prod(tensor_shape), random)
        file.flush()
        os.fsync(file.fileno())


def _write_matrix(write: Any, block: Any, item_count: int, random: Any) -> None:
    """Write so many items of the block, from a random place of it on and from its start again after its end."""
    start = int(random.integers(len(block)))
    while item_count:
        run = block[start : start + item_count]
        write(run.data)
        item_count -= len(run)
        start = 0
