"""How fast does this disk give the bytes of these files when nothing else is done with them?

Covers: reads past the page cache (O_DIRECT) on several threads, each of some megabytes, until every file was read
once; a read through the cache, whose pages are forgotten before and after, where O_DIRECT is refused.
Does not cover: what the bytes are for.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = 4096
THREADS = 4
READ_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class RawRead:
    """One reading of all files."""

    byte_count: int
    seconds: float
    is_direct: bool
    """Whether the page cache had no part in it."""

    @property
    def bytes_per_second(self) -> float:
        return self.byte_count / self.seconds


def read_raw(
    paths: Sequence[Path], *, thread_count: int = THREADS, read_bytes: int = READ_BYTES, most_bytes: int | None = None
) -> RawRead:
    """Read the files once, `most_bytes` of them at most. Raises: OSError: one cannot be read."""
    is_direct = True
    try:
        files = [os.open(path, os.O_RDONLY | os.O_DIRECT) for path in paths]
    except (OSError, AttributeError) as error:  # no O_DIRECT on macOS, none on some file systems
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        is_direct = False
        files = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        jobs = _jobs(files, read_bytes, most_bytes)
        if not is_direct:
            _forget(files)
        started = time.perf_counter()
        byte_count = _read_all(jobs, thread_count, read_bytes)
        seconds = time.perf_counter() - started
        if not is_direct:
            _forget(files)
    finally:
        for file in files:
            os.close(file)
    return RawRead(byte_count=byte_count, seconds=seconds, is_direct=is_direct)


def _jobs(files: Sequence[int], read_bytes: int, most_bytes: int | None) -> list[tuple[int, int]]:
    """Return (file, offset) of every read, in the order of the files."""
    jobs = [(file, offset) for file in files for offset in range(0, os.fstat(file).st_size, read_bytes)]
    return jobs if most_bytes is None else jobs[: max(1, most_bytes // read_bytes)]


def _read_all(jobs: Sequence[tuple[int, int]], thread_count: int, read_bytes: int) -> int:
    waiting = iter(jobs)
    lock = threading.Lock()
    counts = [0] * thread_count
    errors: list[OSError] = []

    def run(index: int) -> None:
        with mmap.mmap(-1, read_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON) as buffer, memoryview(buffer) as view:
            while not errors:
                with lock:
                    job = next(waiting, None)
                if job is None:
                    return
                try:
                    counts[index] += os.preadv(job[0], [view], job[1])
                except OSError as error:
                    errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(thread_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts)


def forget_cached(paths: Sequence[Path]) -> None:
    """Ask the system to forget the files' pages, so that nobody profits from what somebody else has read."""
    files = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        _forget(files)
    finally:
        for file in files:
            os.close(file)


def _forget(files: Sequence[int]) -> None:
    if hasattr(os, "posix_fadvise"):
        for file in files:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
