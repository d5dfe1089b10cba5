"""For how long were this process' threads ready to run and had no core? Linux tells; elsewhere it is 0.

    starved = StarvedTime()
    starved.nanoseconds()       # cheap: looks again once a second, at most
    starved.close()             # lets go of the kernel's files

Covers: all threads, each counted by itself: processors that are busy with others, and quotas of a control group, which
the kernel counts alike. Does not cover: how long a product took beyond its thread's processor time
(shardnode/work/executor.py).
Source: sched_info of the kernel, Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from functools import partial

from common.machine.kernel_files import KeptFile, content_of

LOOK_SECONDS = 1.0
"""Between two looks; one takes some microseconds a thread."""
MOST_KEPT = 16
"""Files that stay open, a third of what it takes to open them each time: as many, however many threads there are."""
TASKS = "/proc/self/task"
_LONGEST = 64


class StarvedTime:
    """A count that only grows, from 0 when it is made. From any thread."""

    def __init__(self, tasks: str = TASKS) -> None:
        """Args: tasks: where the system keeps a directory for each thread."""
        self._tasks = tasks
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._by_thread: dict[str, tuple[KeptFile | None, int]] = {}
        self._total, self._has_looked = 0, False
        self._look()

    def nanoseconds(self) -> int:
        """Return what was counted by the last look, which is LOOK_SECONDS old at most, or is made now."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._looked_at = now
                self._look()
            finally:
                self._lock.release()
        return self._total

    def close(self) -> None:
        """Let go of the files; what was counted stays, and nothing is added to it. May be called twice."""
        with self._lock:
            self._looked_at = float("inf")
            self._by_thread = {}

    def _look(self) -> None:
        """Add what each thread has waited since the last look; one that has ended takes the rest with it."""
        before, self._by_thread = self._by_thread, {}
        is_first, self._has_looked = not self._has_looked, True
        try:
            threads = os.listdir(self._tasks)
        except OSError:  # another system than Linux
            return
        kept_count = sum(before.get(thread, (None, 0))[0] is not None for thread in threads)
        for thread in threads:
            # It has just ended, there are no descriptors left, or the kernel does not count.
            with suppress(OSError, IndexError, ValueError):
                file, waited_before = before.get(thread, (None, 0))
                path = f"{self._tasks}/{thread}/schedstat"
                if file is None and kept_count < MOST_KEPT:
                    file, kept_count = KeptFile(path), kept_count + 1
                waited = int((file.content if file else partial(content_of, path))(_LONGEST).split()[1])
                self._by_thread[thread] = (file, waited)
                if not is_first:
                    self._total += max(0, waited - waited_before)
