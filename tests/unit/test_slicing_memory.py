"""Does slicing take the memory of one tensor, whatever the size of the checkpoint?

Covers: the peak of a fresh process that slices tensors as large as a real model's, 500 MB of them, and with
SHARDMESH_THOROUGH=1 (.ci/run) 1 GB; and of one that slices a quantized file whose tensors are small beside it, for four
nodes, and thoroughly for one too.
Does not cover: 2 GB of either (`make bench` measures that: tests/bench/slicing_memory.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.large_checkpoints import LARGEST_TENSOR_BYTES, slicing_memory, write_large_checkpoint
from tests.support.quantized_shapes import SMALL, ensure_quantized, largest_tensor_bytes
from tests.support.thorough import THOROUGH

MOST_BYTES = 300_000_000
BYTE_COUNT = 1_000_000_000 if THOROUGH else 500_000_000


peak_is_kept = pytest.mark.skipif(sys.platform != "linux", reason="no other system keeps the peak of a process for us")


@peak_is_kept
def test_slicing_peaks_below_300_mb(tmp_path: Path) -> None:
    """Beyond Python and numpy there is one source tensor and little more; pages of the source do not pile up."""
    written_bytes = write_large_checkpoint(tmp_path, byte_count=BYTE_COUNT)
    assert written_bytes > BYTE_COUNT
    measured = slicing_memory(tmp_path)
    assert measured["peak_bytes"] < MOST_BYTES
    assert measured["peak_bytes"] - measured["before_bytes"] < 2 * LARGEST_TENSOR_BYTES
    (tmp_path / "model.safetensors").unlink()  # pytest keeps the directories of three runs
    for path in tmp_path.rglob("split/**/*.safetensors"):
        path.unlink()


@peak_is_kept
@pytest.mark.parametrize("world_size", [1, 4] if THOROUGH else [4])
def test_slicing_a_quantized_file_takes_memory_near_its_largest_tensor(tmp_path: Path, world_size: int) -> None:
    """Twice as much at most, of a file of nine times as much; on one node as on four."""
    path = tmp_path / "model.gguf"
    ensure_quantized(path, SMALL, pool_blocks=1 << 12)
    largest_bytes = largest_tensor_bytes(SMALL)
    assert path.stat().st_size > 8 * largest_bytes
    measured = slicing_memory(path, world_size=world_size)
    assert measured["peak_bytes"] - measured["before_bytes"] < 2 * largest_bytes
    for written in (path, *tmp_path.rglob("split/**/*.safetensors")):
        written.unlink()
