"""Starves a running process of one thing: its disk, its processor, its memory. Control groups of version 1.

    with ControlGroup("blkio") as group:
        group.add(process_id)
        group.throttle_reads(path, bytes_per_second=5_000_000)

Covers: what a process may take from now on; what it has taken before stays with its group of before.
Does not cover: hosts' memory groups, which programs start in (network_hosts.py); version 2.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from types import TracebackType

from tests.support.waiting import wait_until

GROUPS = Path("/sys/fs/cgroup")
PERIOD_MICROSECONDS = 100_000
LIMIT_SECONDS = 10.0


def why_not(*controllers: str) -> str:
    """Return why nothing can be starved here; empty when it can."""
    missing = [name for name in controllers if not os.access(GROUPS / name / "cgroup.procs", os.W_OK)]
    return f"no control groups of version 1 to write to: {', '.join(missing)}" if missing else ""


class ControlGroup:
    """A group of one controller. Close it, which gives its processes back."""

    def __init__(self, controller: str) -> None:
        self._parent = GROUPS / controller
        self._directory = self._parent / f"shardmesh-{uuid.uuid4().hex[:8]}"
        self._directory.mkdir()

    def add(self, process_id: int) -> None:
        """Put a process with all its threads into the group."""
        (self._directory / "cgroup.procs").write_text(str(process_id))

    def throttle_reads(self, path: Path, *, bytes_per_second: int) -> None:
        """Limit reads from the disk that a path lies on; 0: no limit."""
        device = os.stat(path).st_dev
        self._write("blkio.throttle.read_bps_device", f"{os.major(device)}:{os.minor(device)} {bytes_per_second}")

    def limit_processor(self, share: float) -> None:
        """Limit the group to a share of one core; 0: no limit."""
        self._write("cpu.cfs_period_us", str(PERIOD_MICROSECONDS))
        self._write("cpu.cfs_quota_us", str(int(share * PERIOD_MICROSECONDS) or -1))

    def close(self) -> None:
        """Give processes back to the parent's group, and remove the group."""
        for process_id in (self._directory / "cgroup.procs").read_text().split():
            try:
                (self._parent / "cgroup.procs").write_text(process_id)
            except ProcessLookupError:
                continue  # it has ended
        wait_until(self._is_removed, limit_seconds=LIMIT_SECONDS, what=f"{self._directory} is empty and removed")

    def _write(self, file: str, value: str) -> None:
        (self._directory / file).write_text(value)

    def _is_removed(self) -> bool:
        try:
            self._directory.rmdir()
        except OSError:
            return False
        return True

    def __enter__(self) -> ControlGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
