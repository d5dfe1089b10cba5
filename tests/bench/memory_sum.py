"""How fast does this machine read as much memory as the weights of a token take, when it only adds up what it reads?

Covers: torch.sum over a float32 buffer, which no matrix product can beat by much; the size of a token's weights.
Does not cover: comparing (speed.py). `open_sum` runs inside a worker (workers.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from common.weights.manifest import EMBEDDING_FILE, NORMS_FILE
from tests.bench.contenders import RunTurn, Turn, differences, processor_seconds, subtract


def streamed_files(split_directory: Path) -> list[Path]:
    """Return the files that are read whole for every token."""
    names = {EMBEDDING_FILE, NORMS_FILE}
    return sorted(path for path in split_directory.rglob("*.safetensors") if path.name not in names)


def decode_bytes(split_directory: Path) -> int:
    """Return how many bytes of weights a token takes: all blocks and the head; of the embedding it is one row."""
    return sum(path.stat().st_size for path in streamed_files(split_directory))


@contextmanager
def open_sum(byte_count: int, thread_count: int) -> Iterator[RunTurn]:
    """Fill the buffer; a turn adds it up once for each token after the first."""
    torch.set_num_threads(thread_count)
    buffer = torch.ones(byte_count // 4, dtype=torch.float32)

    def run(length: int) -> Turn:
        processor = processor_seconds([])
        stamps = [time.perf_counter()]
        for _ in range(length - 1):
            buffer.sum()
            stamps.append(time.perf_counter())
        return Turn(
            token_ids=(), seconds_per_token=differences(stamps),
            processor=subtract(processor_seconds([]), processor),
        )  # fmt: skip

    yield run
