"""How much memory does slicing a checkpoint of 2 GB take?

Covers: the peak of a fresh process over a random Llama in bfloat16, cut for 4 nodes, and over the Llama-3.2-3B shape in
Q4_K_M's mixture, for 1 and 4; `split` of that file in a control group that has much less than the largest tensor.
Does not cover: the demo model (slicing.py); less of it in `make test` (tests/unit/test_slicing_memory.py).
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.bench.command_runs import PROGRAM
from tests.bench.inputs import KEPT_DIRECTORY
from tests.bench.memory_group import MemoryGroup, NoMemoryGroups
from tests.bench.report import Bar, BenchBroken, Result, Settings, Table
from tests.support.large_checkpoints import LARGEST_TENSOR_BYTES, slicing_memory, write_large_checkpoint
from tests.support.quantized_shapes import LLAMA_3_2_3B, SMALL, ensure_quantized, largest_tensor_bytes

BYTE_COUNT = 2_000_000_000
QUICK_BYTE_COUNT = 500_000_000
MOST_MEGABYTES = 300
GROUP_BYTES = 96_000_000
Rows = list[tuple[str, str]]


def measure(settings: Settings) -> Result:
    """Write the checkpoints into a temporary directory and slice them there; 4.5 GB of disk are needed meanwhile.

    Raises: BenchBroken: `split` fails in its control group.
    """
    with tempfile.TemporaryDirectory(prefix="slicing-memory-", dir=KEPT_DIRECTORY) as directory:
        result = _full(Path(directory), QUICK_BYTE_COUNT if settings.is_quick else BYTE_COUNT)
    with tempfile.TemporaryDirectory(prefix="slicing-memory-", dir=KEPT_DIRECTORY) as directory:
        _add_quantized(result, Path(directory) / "model.gguf", is_quick=settings.is_quick)
    return result


def _full(directory: Path, byte_count: int) -> Result:
    written_bytes = write_large_checkpoint(directory, byte_count=byte_count)
    measured = slicing_memory(directory)
    rows = [*_sizes(written_bytes, LARGEST_TENSOR_BYTES), *_rows("4 nodes", measured)]
    return Result(
        name="Slicing memory",
        tables=[Table(title="A random Llama in bfloat16, a fresh process", header=("what", "value"), rows=rows)],
        bars=[Bar(
            name="bfloat16: peak memory", measured=measured["peak_bytes"] / 1e6, needed=MOST_MEGABYTES, at_least=False,
            unit=" MB",
        )],
        numbers={"checkpoint_bytes": written_bytes, **measured},
    )  # fmt: skip


def _add_quantized(result: Result, path: Path, *, is_quick: bool) -> None:
    shape = SMALL if is_quick else LLAMA_3_2_3B
    ensure_quantized(path, shape)
    largest_bytes = largest_tensor_bytes(shape)
    rows = _sizes(path.stat().st_size, largest_bytes)
    for world_size in (1, 4):
        measured = slicing_memory(path, world_size=world_size)
        rows += _rows("1 node" if world_size == 1 else f"{world_size} nodes", measured)
        result.numbers[f"quantized_{world_size}"] = measured
        taken_bytes = measured["peak_bytes"] - measured["before_bytes"]
        result.bars.append(Bar(
            name=f"quantized, for {world_size}: what slicing takes / the largest tensor", at_least=False,
            measured=taken_bytes / largest_bytes, needed=2.0 if is_quick else 1.0,
        ))  # fmt: skip
    rows.append(_in_a_group(path))
    result.tables.append(Table(
        title=f"{shape.name}'s shape, random blocks in Q4_K_M's mixture", header=("what", "value"), rows=rows
    ))  # fmt: skip


def _in_a_group(path: Path) -> tuple[str, str]:
    """Return what came of `split` with everything that it starts, page cache included, in so much memory."""
    command = [*PROGRAM, "split", "--model", str(path), "--world-size", "4", "--split-bin"]
    try:
        with MemoryGroup.create(GROUP_BYTES) as group:
            done = subprocess.run(group.command(command), capture_output=True, text=True, check=False)
            if done.returncode or group.oom_kills():
                raise BenchBroken(f"split in {GROUP_BYTES} bytes ended with {done.returncode}: {done.stderr[-500:]}")
    except NoMemoryGroups as error:
        return "`split` in a control group", str(error)
    return "`split` for 4 nodes in a control group of, MB", f"{GROUP_BYTES / 1e6:.0f}"


def _sizes(written_bytes: int, largest_bytes: int) -> Rows:
    return [("checkpoint, MB", f"{written_bytes / 1e6:.0f}"), ("its largest tensor, MB", f"{largest_bytes / 1e6:.0f}")]


def _rows(nodes: str, measured: dict[str, float]) -> Rows:
    return [
        (f"{nodes}: peak memory, MB", f"{measured['peak_bytes'] / 1e6:.0f}"),
        (f"{nodes}: of it before slicing, MB", f"{measured['before_bytes'] / 1e6:.0f}"),
        (f"{nodes}: slice, s", f"{measured['seconds']:.1f}"),
    ]
