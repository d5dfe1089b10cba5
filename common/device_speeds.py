"""How fast is this device: reading weights from memory, from its disk, and computing prompts? Measured once, kept.

    DIRECTORY/device.json       trusted for the cores and the disk that it was measured with

Covers: the three rates that plans are made with. Does not cover: links (coordinator/links.py), what a plan makes of
them (coordinator/prediction.py).
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.durable_files import replace_private
from common.errors import ShardmeshError
from common.free_memory import free_memory_bytes
from common.operating_system import usable_core_count

SPEEDS_FILE = "device.json"
FORMAT = 1
MOST_WEIGHT_BYTES = 128 << 20
"""Larger than any cache that several devices of a home have; less where memory is short."""
SCRATCH_BYTES = 96 << 20
PROMPT_ROWS, PROMPT_SIZE = 128, 2048
LOOKS, BETWEEN_LOOKS_SECONDS = 24, 0.06
DISK_LOOKS = 3
"""Of 0.7 s each."""


@dataclass(frozen=True, kw_only=True)
class DeviceSpeeds:
    """Rates of one device; 0 where they could not be measured."""

    memory_bytes_per_second: float = 0.0
    """Of float32 weights that our kernels multiply one row with, on all cores."""
    disk_bytes_per_second: float = 0.0
    """Of reads past the page cache, as many and as large as this disk wants."""
    arithmetic_per_second: float = 0.0
    """Floating-point operations of a product of many rows, a multiplication and an addition counted as two."""


def device_speeds(directory: Path, told: Callable[[str], None] = lambda text: None) -> DeviceSpeeds:
    """Return this device's rates, measured unless that was done before.

    Args: directory: where they are kept, on the disk that counts. told: called with what is measured, for people.
    Raises: OSError: the directory cannot be written.
    """
    kept = kept_speeds(directory)
    if kept is not None:
        return kept
    told("measuring this device's memory, processor and disk")
    memory, arithmetic = _processor_rates()
    speeds = DeviceSpeeds(
        memory_bytes_per_second=memory, arithmetic_per_second=arithmetic, disk_bytes_per_second=_disk_rate(directory)
    )
    value = {**_circumstances(directory), **asdict(speeds)}
    replace_private(directory / SPEEDS_FILE, json.dumps(value, indent=1).encode())
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


def _disk_rate(directory: Path) -> float:
    """Measure with a file of our own, which goes afterwards; 0 where there is no room for it."""
    from common.weights.disk_profile import measure_disk

    with suppress(OSError, ShardmeshError), tempfile.NamedTemporaryFile(dir=directory, prefix=".speed-") as file:
        piece = os.urandom(1 << 20)  # some disks are fast with zeros only
        for _ in range(SCRATCH_BYTES >> 20):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        # On a disk that others use too, they can only take away.
        return max(measure_disk([Path(file.name)]).bytes_per_second for _ in range(DISK_LOOKS))
    return 0.0


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return max(1e-9, time.perf_counter() - started)
