"""How long does slicing the demo model take, and how much memory?

Covers: seconds and peak memory of a fresh process, quantized GGUF to float32 slices for 4 nodes.
Does not cover: checkpoints that are larger than memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from common.machine.operating_system import own_memory
from coordinator.models.local_model import LocalModel, ModelOptions
from tests.bench.inputs import KEPT_DIRECTORY, MODEL_DIRECTORY
from tests.bench.report import Result, Settings, Spread, Table
from tests.bench.workers import Worker

MOST_RUNS = 3
WORLD_SIZE = 4


@dataclass(frozen=True, kw_only=True)
class Run:
    """One slicing."""

    open_seconds: float
    slice_seconds: float
    written_bytes: int
    imports_bytes: int
    """Memory of the process before it began: Python and libraries."""
    peak_bytes: int


def measure(settings: Settings) -> Result:
    """Slice in fresh processes into a temporary directory. Raises: BenchBroken."""
    runs = [_run_once() for _ in range(1 if settings.is_quick else min(MOST_RUNS, settings.rounds))]
    rows = [
        ("open the checkpoint, s", *Spread.of([run.open_seconds for run in runs]).cells(1)),
        ("slice, s", *Spread.of([run.slice_seconds for run in runs]).cells(1)),
        ("peak memory, MB", *Spread.of([run.peak_bytes / 1e6 for run in runs]).cells(0)),
        ("of it before slicing, MB", *Spread.of([run.imports_bytes / 1e6 for run in runs]).cells(0)),
        ("written, MB", *Spread.of([run.written_bytes / 1e6 for run in runs]).cells(0)),
    ]
    return Result(
        name=f"Slicing: SmolLM2-135M from GGUF to float32 slices for {WORLD_SIZE} nodes",
        tables=[Table(title="A fresh process each time", header=("what", "median", "least", "most"), rows=rows)],
        numbers={"runs": [asdict(run) for run in runs]},
    )


def _run_once() -> Run:
    with tempfile.TemporaryDirectory(prefix="slicing-", dir=KEPT_DIRECTORY) as directory:
        worker = Worker("slicing", _open_slicer)
        try:
            worker.wait_until_ready()
            run: Run = worker.ask(Path(directory))
        finally:
            worker.close()
        return run


@contextmanager
def _open_slicer() -> Iterator[Callable[[Path], Run]]:
    def run(directory: Path) -> Run:
        imports_bytes = own_memory().rss_bytes
        started = time.perf_counter()
        model = LocalModel(ModelOptions(
            model=MODEL_DIRECTORY, world_size=WORLD_SIZE, save_dir=str(directory), weights_dtype="float32"
        ))  # fmt: skip
        opened = time.perf_counter()
        model.slice(lambda done, total: None)
        ended = time.perf_counter()
        model.close()
        return Run(
            open_seconds=opened - started, slice_seconds=ended - opened, imports_bytes=imports_bytes,
            peak_bytes=own_memory().peak_rss_bytes,
            written_bytes=sum(path.stat().st_size for path in directory.rglob("*.safetensors")),
        )  # fmt: skip

    yield run
