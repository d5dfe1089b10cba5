"""Checkpoints of some gigabytes with tensors as large as a real model's, and what slicing one takes.

    write_large_checkpoint(directory, byte_count=1 << 30)
    slicing_memory(directory)     # a fresh process slices it: {"peak_bytes": ..., "before_bytes": ..., "seconds": ...}

Covers: a Llama of hidden size 4096 in bfloat16, repeated random blocks (writing must not be what takes the time).
Does not cover: quantized files (quantized_shapes.py), which `slicing_memory` takes too; answers of such a model.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common.machine.operating_system import own_memory
from coordinator.models.local_model import LocalModel, ModelOptions

REPOSITORY = Path(__file__).resolve().parent.parent.parent
HIDDEN, FFN, QUERY_HEADS, KV_HEADS, HEAD, VOCAB = 4096, 14336, 32, 8, 128, 16384
ITEM_BYTES = 2
BLOCK_BYTES = 1 << 20
LAYER_TENSORS = {
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
    "self_attn.q_proj": (QUERY_HEADS * HEAD, HIDDEN),
    "self_attn.k_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.v_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.o_proj": (HIDDEN, QUERY_HEADS * HEAD),
    "mlp.gate_proj": (FFN, HIDDEN),
    "mlp.up_proj": (FFN, HIDDEN),
    "mlp.down_proj": (HIDDEN, FFN),
}
LARGEST_TENSOR_BYTES = VOCAB * HIDDEN * ITEM_BYTES


def write_large_checkpoint(directory: Path, *, byte_count: int) -> int:
    """Write a model of at least `byte_count` bytes in one safetensors file and return its size."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    layers = 0
    while sum(map(math.prod, shapes.values())) * ITEM_BYTES < byte_count:
        shapes |= {f"model.layers.{layers}.{name}.weight": shape for name, shape in LAYER_TENSORS.items()}
        layers += 1
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_hidden_layers": layers, "num_attention_heads": QUERY_HEADS, "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCAB, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "tie_word_embeddings": True, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
    }  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    _write_safetensors(directory / "model.safetensors", shapes)
    return (directory / "model.safetensors").stat().st_size


def slicing_memory(model: Path, *, world_size: int = 4) -> dict[str, float]:
    """Slice a checkpoint, as it is stored, in a fresh process and return what that took, in bytes and seconds."""
    command = [sys.executable, "-m", "tests.support.large_checkpoints", str(model), str(world_size)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(result.stdout)
    return measured


def _write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    entries: dict[str, Any] = {}
    position = 0
    for name, shape in shapes.items():
        stop = position + math.prod(shape) * ITEM_BYTES
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, stop]}
        position = stop
    header = json.dumps(entries).encode()
    block = bytearray(os.urandom(BLOCK_BYTES))
    block[1::ITEM_BYTES] = bytes(byte & 0xBF for byte in block[1::ITEM_BYTES])  # every exponent that of a finite number
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, position, BLOCK_BYTES):
            file.write(block[: position - start])


def _main(arguments: list[str]) -> None:
    """Slice, and print what it took. The peak is the kernel's VmHWM, which begins anew with this program.

    (ru_maxrss would not do: it keeps what the process that started this one had in memory.)
    """
    before_bytes = own_memory().rss_bytes
    started = time.perf_counter()
    model = LocalModel(ModelOptions(model=Path(arguments[0]), world_size=int(arguments[1]), split_bin=True))
    model.slice(lambda done, total: None)
    seconds = time.perf_counter() - started
    model.close()
    print(json.dumps({
        "peak_bytes": own_memory().peak_rss_bytes, "before_bytes": before_bytes, "seconds": seconds,
    }))  # fmt: skip


if __name__ == "__main__":
    _main(sys.argv[1:])
