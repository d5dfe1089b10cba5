"""What do the benchmarks of models larger than memory measure with: a 3B model, its slices, prompts?

Covers: making each once, under models/bench-3b (`rm -r` it to have the disk back), and whether there is room for it.
Does not cover: what the weights are (tests/support/true_shapes.py), the small model (inputs.py).
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coordinator.models.local_model import LocalModel, ModelOptions
from tests.bench.inputs import PROMPT, REPOSITORY, long_prompt
from tests.bench.memory_sum import streamed_files
from tests.bench.report import BenchBroken
from tests.support.true_shapes import LLAMA_3_8B, OPEN_LLAMA_3B, Shape, ensure_checkpoint

SIZES = {"3b": OPEN_LLAMA_3B, "8b": LLAMA_3_8B}
SAVE_DIRECTORIES = {4: "split", 1: "split1"}
"""By the number of nodes; the contender table names them too."""
SPARE_BYTES = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class BigModel:
    """A model on disk with its slices for 4 nodes and for 1."""

    shape: Shape
    directory: Path
    prompt: str
    slice_files: tuple[Path, ...]
    """What 4 nodes and the head read for a token; the embedding, of which a row is read, is not among them."""

    @property
    def slice_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.slice_files)

    def split(self, world_size: int) -> Path:
        return self.directory / SAVE_DIRECTORIES[world_size]

    def long_prompt(self, token_count: int) -> str:
        return long_prompt(self.directory, token_count)


def prepare(size: str) -> BigModel:
    """Write and slice the model unless that was done before. Raises: BenchBroken: the disk has no room."""
    shape = SIZES[size]
    directory = REPOSITORY / "models" / f"bench-{size}"
    needed_bytes = (1 + len(SAVE_DIRECTORIES)) * shape.byte_count + SPARE_BYTES
    free_bytes = shutil.disk_usage(REPOSITORY).free
    if not (directory / SAVE_DIRECTORIES[1] / "coordinator").is_dir() and free_bytes < needed_bytes:
        raise BenchBroken(f"{shape.name} and its slices take {needed_bytes / 1e9:.0f} GB of disk; "
                          f"{free_bytes / 1e9:.0f} GB are free")  # fmt: skip
    _timed(f"random weights of {shape.name}", lambda: ensure_checkpoint(directory, shape))
    for world_size, name in SAVE_DIRECTORIES.items():
        _timed(f"slices for {world_size} node(s)", functools.partial(_slice, directory, world_size, name))
    return BigModel(
        shape=shape, directory=directory, prompt=PROMPT, slice_files=tuple(streamed_files(directory / "split"))
    )  # fmt: skip


def _slice(directory: Path, world_size: int, save_directory: str) -> bool:
    model = LocalModel(ModelOptions(model=directory, world_size=world_size, save_dir=save_directory))
    try:
        return model.slice(lambda done, total: None)
    finally:
        model.close()


def _timed(what: str, make: Callable[[], bool]) -> None:
    started = time.perf_counter()
    if make():
        print(f"made {what} in {time.perf_counter() - started:.0f} s", flush=True)
