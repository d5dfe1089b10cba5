"""How many reads at once, and how large, does the disk under a slice want? Measured once, kept beside the manifest.

Covers: a probe of about a second over the slice's own files, past the page cache; `disk.json`, trusted only for the
device it was measured on. Does not cover: reading tiles (reader.py), when streaming bypasses the cache.

A spinning disk wants one long read, an NVMe disk several: the fewest and smallest that come close to the best are
taken, since each read in flight holds bytes of the window.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import ShardmeshError
from common.machine.direct_io import BLOCK_BYTES, open_file
from common.weights.reader import ReadSettings, TileRange
from common.weights.weight_memory import MAX_READS_IN_FLIGHT

DISK_NAME = "disk.json"
DEPTHS = (1, 2, 4)
READ_BYTES = (1 << 20, 4 << 20, 8 << 20)
PROBE_SECONDS = 0.12
"""For each combination; a read that is under way then is waited for."""
GOOD_ENOUGH = 0.93
"""Of the best rate: what fewer or smaller reads must reach to be preferred; disks vary more than the rest."""


NextRead = Callable[[], tuple[Path, int, int]]
"""() -> (file, offset, length) of one more read, whole blocks."""


@dataclass(frozen=True, kw_only=True)
class DiskProfile:
    """What a disk wants, and what it gives then."""

    device: int
    """st_dev of the slice's directory: another disk is measured again."""
    reads_in_flight: int
    read_bytes: int
    bytes_per_second: float


def disk_profile(directory: Path, tiles: Sequence[TileRange]) -> DiskProfile:
    """Return the profile of the disk that `directory` lies on, measuring it if that was not done yet.

    Raises: SliceReadError: the files cannot be read.
    """
    device = os.stat(directory).st_dev
    profile = _kept(directory / DISK_NAME)
    if profile is None or profile.device != device:
        profile = measure_disk(sorted({tile.path for tile in tiles}))
        with suppress(OSError):  # a directory that only others may write: measured at each start then
            scratch = directory / f"{DISK_NAME}.{os.getpid()}"
            scratch.write_text(json.dumps(asdict(profile)) + "\n", encoding="utf-8")
            os.replace(scratch, directory / DISK_NAME)
    return profile


def _kept(path: Path) -> DiskProfile | None:
    """Return what an earlier start wrote; whatever else lies there counts as nothing."""
    try:
        profile = DiskProfile(**json.loads(path.read_text(encoding="utf-8")))
        ReadSettings(reads_in_flight=profile.reads_in_flight, read_bytes=profile.read_bytes)
    except (OSError, ValueError, TypeError, ShardmeshError):
        return None
    return profile if profile.reads_in_flight <= MAX_READS_IN_FLIGHT and profile.bytes_per_second > 0 else None


def measure_disk(paths: Sequence[Path]) -> DiskProfile:
    """Return the profile of the disk that some files lie on, measured now. Raises: OSError: they cannot be read."""
    device = os.stat(paths[0]).st_dev
    rate = _Probe(paths).rate
    by_depth = {depth: rate(depth, READ_BYTES[1]) for depth in DEPTHS}
    depth = _least(by_depth)
    by_size = {size: by_depth[depth] if size == READ_BYTES[1] else rate(depth, size) for size in READ_BYTES}
    size = _least(by_size)
    return DiskProfile(device=device, reads_in_flight=depth, read_bytes=size, bytes_per_second=by_size[size])


def _least(rates: dict[int, float]) -> int:
    best = max(rates.values())
    return min(choice for choice, rate in rates.items() if rate >= GOOD_ENOUGH * best)


class _Probe:
    """Reads at random places of some files, past the page cache."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._source = random.Random(0)

    def rate(self, depth: int, read_bytes: int) -> float:
        """Return bytes a second with `depth` threads that each read `read_bytes` at a time."""
        done = [0] * depth
        started = time.perf_counter()
        threads = [
            threading.Thread(target=self._read, args=(self._jobs(read_bytes), started + PROBE_SECONDS, done, index))
            for index in range(depth)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(1.0, sum(done) / (time.perf_counter() - started))

    def _jobs(self, read_bytes: int) -> NextRead:
        source = random.Random(self._source.random())

        def next_job() -> tuple[Path, int, int]:
            path = source.choice(self._paths)
            size = os.stat(path).st_size // BLOCK_BYTES * BLOCK_BYTES
            length = min(read_bytes, size)
            return path, source.randrange(0, size - length + 1, BLOCK_BYTES), length

        return next_job

    def _read(self, next_job: NextRead, deadline: float, done: list[int], index: int) -> None:
        buffer = memoryview(mmap.mmap(-1, max(READ_BYTES), flags=mmap.MAP_PRIVATE | mmap.MAP_ANON))
        while time.perf_counter() < deadline:
            try:
                path, offset, byte_count = next_job()
                opened = open_file(path, bypass_page_cache=True)
                try:
                    done[index] += os.preadv(opened.fd, [buffer[:byte_count]], offset)
                finally:
                    os.close(opened.fd)
            except OSError:
                return  # the reader will meet it again, and tell who waits
