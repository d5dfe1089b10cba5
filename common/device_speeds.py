"""How fast is this device: reading weights from memory, from its disk, and computing prompts? Measured and kept.

    DIRECTORY/device.json                           trusted for the cores and the disk that it was measured with
    python -m common.device_speeds DIRECTORY FILE...    measures in a process of its own, for measure_apart

Covers: the three rates that plans are made with. Does not cover: links (coordinator/links.py), what a plan makes of
them (coordinator/prediction.py).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from common.durable_files import replace_private
from common.errors import ResourceError, ShardmeshError
from common.free_memory import free_memory_bytes
from common.operating_system import be_first_to_go, end_with_parent, usable_core_count

SPEEDS_FILE = "device.json"
FORMAT = 1
MOST_WEIGHT_BYTES = 128 << 20
"""Larger than any cache that several devices of a home have; less where memory is short."""
SCRATCH_BYTES = 96 << 20
PROMPT_ROWS, PROMPT_SIZE = 128, 2048
LOOKS, BETWEEN_LOOKS_SECONDS = 24, 0.06
DISK_LOOKS = 3
"""Of 0.7 s each."""
MOST_RATE = 1e17
"""Beyond any device's: who tells more is not believed."""
APART_SECONDS, LOOK_SECONDS = 60.0, 0.25


@dataclass(frozen=True, kw_only=True)
class DeviceSpeeds:
    """Rates of one device; 0 where they could not be measured."""

    memory_bytes_per_second: float = 0.0
    """Of float32 weights that our kernels multiply one row with, on all cores."""
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
    memory, arithmetic = _processor_rates()
    disk = _rate_of(files) if files else _rate_of_scratch(directory)
    speeds = DeviceSpeeds(
        memory_bytes_per_second=memory, arithmetic_per_second=arithmetic, disk_bytes_per_second=disk
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
    command = [sys.executable, "-m", "common.device_speeds", str(directory), *map(str, files)]
    quiet = subprocess.DEVNULL
    end = time.monotonic() + APART_SECONDS
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            while process.poll() is None and is_wanted() and time.monotonic() < end:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS)
        finally:
            process.kill()
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


def _processor_rates() -> tuple[float, float]:
    """Return the rates from memory and of arithmetic: the middle of many short looks, since neighbours come and go."""
    import torch

    from common.matmul import multiply, set_thread_count, use_threads_for

    set_thread_count(usable_core_count())
    weight_bytes = min(MOST_WEIGHT_BYTES, free_memory_bytes() // 8)
    weight = torch.ones(max(1, weight_bytes // (4 * PROMPT_SIZE)), PROMPT_SIZE)
    row, rows = torch.ones(1, weight.shape[0]), torch.ones(PROMPT_ROWS, PROMPT_SIZE)
    square = weight[:PROMPT_SIZE]
    memory, arithmetic = [], []
    for _ in range(LOOKS):
        use_threads_for(1)
        memory.append(_seconds(lambda: multiply(row, weight)))
        use_threads_for(PROMPT_ROWS)
        arithmetic.append(_seconds(lambda: multiply(rows[:, : square.shape[0]], square)))
        time.sleep(BETWEEN_LOOKS_SECONDS)
    operations = 2 * PROMPT_ROWS * square.numel()
    return weight.numel() * 4 / statistics.median(memory), operations / statistics.median(arithmetic)


def _rate_of_scratch(directory: Path) -> float:
    """Measure with a file of our own, which goes afterwards; 0 where there is no room for it."""
    with suppress(OSError, ShardmeshError), tempfile.NamedTemporaryFile(dir=directory, prefix=".speed-") as file:
        piece = os.urandom(1 << 20)  # some disks are fast with zeros only
        for _ in range(SCRATCH_BYTES >> 20):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        return _rate_of([Path(file.name)])
    return 0.0


def _rate_of(files: Sequence[Path]) -> float:
    from common.weights.disk_profile import measure_disk

    # On a disk that others use too, they can only take away.
    return max(measure_disk(files).bytes_per_second for _ in range(DISK_LOOKS))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return max(1e-9, time.perf_counter() - started)


if __name__ == "__main__":
    end_with_parent()
    be_first_to_go()
    measure_now(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
