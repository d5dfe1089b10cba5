"""Does slicing take the memory of one tensor, whatever the size of the checkpoint?

Covers: the peak of a fresh process that slices 1 GB of tensors as large as a real model's.
Does not cover: 2 GB (`make bench` measures that: tests/bench/slicing_memory.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.large_checkpoints import LARGEST_TENSOR_BYTES, slicing_memory, write_large_checkpoint

MOST_BYTES = 300_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="no other system keeps the peak of a process for us")
def test_slicing_1_gb_peaks_below_300_mb(tmp_path: Path) -> None:
    """Beyond Python and numpy there is one source tensor and little more; pages of the source do not pile up."""
    written_bytes = write_large_checkpoint(tmp_path, byte_count=1_000_000_000)
    assert written_bytes > 1_000_000_000
    measured = slicing_memory(tmp_path)
    assert measured["peak_bytes"] < MOST_BYTES
    assert measured["peak_bytes"] - measured["before_bytes"] < 2 * LARGEST_TENSOR_BYTES
    (tmp_path / "model.safetensors").unlink()  # pytest keeps the directories of three runs
    for path in tmp_path.rglob("split/**/*.safetensors"):
        path.unlink()
