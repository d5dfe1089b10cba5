"""How much memory does slicing a checkpoint of 2 GB take?

Covers: the peak of a fresh process over a random Llama in bfloat16, cut for 4 nodes, and its seconds.
Does not cover: the demo model (slicing.py); half the size in `make test` (tests/unit/test_slicing_memory.py).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.inputs import KEPT_DIRECTORY
from tests.bench.report import Bar, Result, Settings, Table
from tests.support.large_checkpoints import LARGEST_TENSOR_BYTES, slicing_memory, write_large_checkpoint

BYTE_COUNT = 2_000_000_000
QUICK_BYTE_COUNT = 500_000_000
MOST_MEGABYTES = 300


def measure(settings: Settings) -> Result:
    """Write the checkpoint into a temporary directory and slice it there; 4.5 GB of disk are needed meanwhile."""
    byte_count = QUICK_BYTE_COUNT if settings.is_quick else BYTE_COUNT
    with tempfile.TemporaryDirectory(prefix="slicing-memory-", dir=KEPT_DIRECTORY) as directory:
        written_bytes = write_large_checkpoint(Path(directory), byte_count=byte_count)
        measured = slicing_memory(Path(directory))
    rows = [
        ("checkpoint, MB", f"{written_bytes / 1e6:.0f}"),
        ("its largest tensor, MB", f"{LARGEST_TENSOR_BYTES / 1e6:.0f}"),
        ("peak memory, MB", f"{measured['peak_bytes'] / 1e6:.0f}"),
        ("of it before slicing, MB", f"{measured['before_bytes'] / 1e6:.0f}"),
        ("slice, s", f"{measured['seconds']:.1f}"),
    ]
    return Result(
        name="Slicing memory: a random Llama in bfloat16, for 4 nodes",
        tables=[Table(title="A fresh process", header=("what", "value"), rows=rows)],
        bars=[Bar(
            name="peak memory", measured=measured["peak_bytes"] / 1e6, needed=MOST_MEGABYTES, at_least=False, unit=" MB"
        )],
        numbers={"checkpoint_bytes": written_bytes, **measured},
    )  # fmt: skip
