"""How is transformers run when the model does not fit: accelerate loads each layer from disk when it is needed?

Covers: opening a model with everything but the last norm on "disk", one turn of it.
Does not cover: its memory limit (big.py). `open_offloaded` runs inside a worker (workers.py).
transformers keeps the checkpoint where it is and accelerate reads each weight from there, as float32, for each token.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.bench.contenders import RunTurn, transformers_turn


@contextmanager
def open_offloaded(directory: Path, prompt_ids: Sequence[int], thread_count: int, layers: int) -> Iterator[RunTurn]:
    """Open the model without loading it."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(thread_count)
    places = {"model.embed_tokens": "disk", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}
    places |= {f"model.layers.{layer}": "disk" for layer in range(layers)}
    with tempfile.TemporaryDirectory(prefix="offload-") as offload_directory:
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, device_map=places, offload_folder=offload_directory
        )
        yield lambda length: transformers_turn(model, prompt_ids, length)
