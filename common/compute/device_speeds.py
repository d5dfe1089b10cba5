"""How fast is this device: reading weights from memory, from its disk, and computing prompts? Measured and kept.

    DIRECTORY/device.json                           trusted for the cores and the disk that it was measured with
    python -m common.compute.device_speeds DIRECTORY FILE...    measures in a process of its own, for measure_apart

Covers: the three rates that plans are made with. Does not cover: links (coordinator/planning/links.py), what a plan
makes of them (coordinator/planning/prediction.py).
"""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ResourceError, ShardmeshError
from common.machine.durable_files import replace_private
from common.machine.free_memory import free_memory_bytes
from common.machine.operating_system import be_first_to_go, end_with_parent, usable_core_count

if TYPE_CHECKING:
    from common.weights.stored_numbers import Floats

SPEEDS_FILE, SCRATCH_PREFIX = "device.json", ".speed-"
FORMAT = 1
MOST_WEIGHT_BYTES = 128 << 20
"""Larger than any cache that several devices of a home have; less where memory is short."""
SCRATCH_BYTES = 96 << 20
PROMPT_ROWS, PROMPT_SIZE = 128, 2048
TURNS, LOOKS, BETWEEN_LOOKS_SECONDS = 4, 10, 0.06
"""Processor and disk take turns, LOOKS and 0.7 s long: a neighbour of two seconds is not all that is seen."""
MOST_RATE = 1e17
"""Beyond any device's: who tells more is not believed."""
APART_SECONDS, LOOK_SECONDS = 60.0, 0.25


@dataclass(frozen=True, kw_only=True)
class DeviceSpeeds:
    """Rates of one device; 0 where they could not be measured."""

    memory_bytes_per_second: float = 0.0
    """Of float32 weights that our kernels, or numpy without any, multiply one row with, on all cores."""
    disk_bytes_per_second: float = 0.0
    """Of reads past the page cache, as many and as large as this disk wants."""
    arithmetic_per_second: float = 0.0
    """Floating-point operations of a product of many rows, a multiplication and an addition counted as two."""

    @classmethod
    def told_by(cls, message: object) -> DeviceSpeeds:
        """Return what a peer's message tells in fields of these names; 0 for what no device can be."""
        rates = {part.name: float(getattr(message, part.name)) for part in fields(cls)}
        return cls(**{name: rate if 0 < rate < MOST_RATE else 0.0 for name, rate in rates.items()})

    def in_words(self) -> str:
        """Return the rates for a person."""
        return (f"weights from memory {self.memory_bytes_per_second / 1e9:.1f} GB/s, from disk "
                f"{self.disk_bytes_per_second / 1e9:.2f} GB/s, prompts {self.arithmetic_per_second / 1e9:.0f} GFLOP/s"
                )  # fmt: skip


def device_speeds(directory: Path, told: Callable[[str], None] = lambda text: None) -> DeviceSpeeds:
    """Return this device's rates, measured unless that was done before.

    Args: directory: where they are kept, on the disk that counts. told: called with what is measured, for people.
    Raises: OSError: the directory cannot be written.
    """
    kept = kept_speeds(directory)
    if kept is not None:
        return kept
    told("measuring this device's memory, processor and disk")
    return measure_now(directory)


def measure_now(directory: Path, files: Sequence[Path] = ()) -> DeviceSpeeds:
    """Measure, and keep it. It takes some seconds, and memory that a budget does not know of.

    Args: files: large ones on the disk that counts; without any, one is written and removed again.
    Raises: OSError: the directory cannot be written.
    """
    processor, disk = _Processor(), [0.0]
    with nullcontext(files) if files else _scratch_file(directory) as paths:
        for _ in range(TURNS):
            processor.look()
            disk.append(_disk_rate(paths))
    memory, arithmetic = processor.rates()
    # Who else uses a disk can only take away.
    speeds = DeviceSpeeds(
        memory_bytes_per_second=memory, arithmetic_per_second=arithmetic, disk_bytes_per_second=max(disk)
    )  # fmt: skip
    value = {**_circumstances(directory), **asdict(speeds)}
    replace_private(directory / SPEEDS_FILE, json.dumps(value, indent=1).encode())
    return speeds


def measure_apart(
    directory: Path, files: Sequence[Path] = (), is_wanted: Callable[[], bool] = lambda: True
) -> DeviceSpeeds:
    """Measure in a process of its own, the first that the kernel ends when memory runs out.

    Args: directory, files: as measure_now; is_wanted: asked meanwhile; when it is not, the process ends.
    Raises: ResourceError: it came to no end, or took too long.
    """
    command = [sys.executable, "-m", "common.compute.device_speeds", str(directory), *map(str, files)]
    quiet = subprocess.DEVNULL
    end = time.monotonic() + APART_SECONDS
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            while process.poll() is None and is_wanted() and time.monotonic() < end:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS)
        finally:
            process.kill()
            process.wait()
            _remove_left_over(directory)
    speeds = kept_speeds(directory) if process.returncode == 0 else None
    if speeds is None:
        raise ResourceError("this device could not be measured now; is its memory or its disk full?")
    return speeds


def kept_speeds(directory: Path) -> DeviceSpeeds | None:
    """Return what was measured before on this very device; None if nothing, or something else, was."""
    try:
        value: dict[str, Any] = json.loads((directory / SPEEDS_FILE).read_bytes())
        expected = _circumstances(directory)
        if any(value.pop(key) != wanted for key, wanted in expected.items()):
            return None
        speeds = DeviceSpeeds(**{name: float(rate) for name, rate in value.items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return speeds if min(asdict(speeds).values()) >= 0 else None


def _circumstances(directory: Path) -> dict[str, int]:
    return {"format": FORMAT, "cores": usable_core_count(), "disk": os.stat(directory).st_dev}


class _Processor:
    """Many short looks at memory and arithmetic; the middle of them counts, since neighbours come and go."""

    def __init__(self) -> None:
        import numpy as np

        from common.compute.matmul import kernels, multiply, set_thread_count

        set_thread_count(usable_core_count())
        self._multiply: Callable[[Floats, Floats], Floats] = np.matmul if kernels.functions is None else multiply
        weight_bytes = min(MOST_WEIGHT_BYTES, free_memory_bytes() // 8)
        self._weight = np.ones((max(1, weight_bytes // (4 * PROMPT_SIZE)), PROMPT_SIZE), np.float32)
        self._square = self._weight[:PROMPT_SIZE]
        self._row = np.ones((1, self._weight.shape[0]), np.float32)
        self._rows = np.ones((PROMPT_ROWS, self._square.shape[0]), np.float32)
        self._memory: list[float] = []
        self._arithmetic: list[float] = []

    def look(self) -> None:
        """Look LOOKS times."""
        for _ in range(LOOKS):
            self._memory.append(_seconds(lambda: self._multiply(self._row, self._weight)))
            self._arithmetic.append(_seconds(lambda: self._multiply(self._rows, self._square)))
            time.sleep(BETWEEN_LOOKS_SECONDS)

    def rates(self) -> tuple[float, float]:
        """Return bytes of weights, and operations, in a second."""
        weight_bytes, operations = self._weight.nbytes, 2 * PROMPT_ROWS * self._square.size
        return weight_bytes / statistics.median(self._memory), operations / statistics.median(self._arithmetic)


@contextmanager
def _scratch_file(directory: Path) -> Iterator[list[Path]]:
    """Yield a file of our own, which goes afterwards; none where there is no room for it."""
    with ExitStack() as closing:
        paths = []
        with suppress(OSError):
            _remove_left_over(directory)
            file = closing.enter_context(tempfile.NamedTemporaryFile(dir=directory, prefix=SCRATCH_PREFIX))
            fcntl.flock(file, fcntl.LOCK_EX)
            piece = os.urandom(1 << 20)  # some disks are fast with zeros only
            for _ in range(SCRATCH_BYTES >> 20):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            paths.append(Path(file.name))
        yield paths


def _remove_left_over(directory: Path) -> None:
    """Remove scratch files of processes that were killed; one that somebody measures with is locked."""
    for path in directory.glob(f"{SCRATCH_PREFIX}*"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _disk_rate(files: Sequence[Path]) -> float:
    """Return bytes a second of reads past the page cache; 0 where there is nothing that can be read."""
    from common.weights.disk_profile import measure_disk

    with suppress(OSError, ShardmeshError):
        return measure_disk(files).bytes_per_second if files else 0.0
    return 0.0


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return max(1e-9, time.perf_counter() - started)


if __name__ == "__main__":
    end_with_parent()
    be_first_to_go()
    # Our programs allow numpy one; where there are no kernels, it is what multiplies here.
    os.environ["OPENBLAS_NUM_THREADS"] = str(usable_core_count())
    measure_now(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
