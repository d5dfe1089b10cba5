"""Slows one process as a small device would: a share of a core, a slow disk. By control groups of version 1.

    with ProcessLimits(process_id) as limits:
        limits.set_processor(0.2)
        limits.set_disk(20e6, data_directory)

Covers: processor quota, reads from a disk. Does not cover: links (network_hosts.py), memory (machine_memory.py). When
it is closed the process is as it was.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from types import TracebackType

GROUPS = Path("/sys/fs/cgroup")
PROCESSOR, DISK = "cpu", "blkio"
PERIOD_MICROSECONDS = 100_000


def why_not() -> str:
    """Return why processes cannot be slowed here; empty when they can."""
    for name, needed in ((PROCESSOR, "cpu.cfs_quota_us"), (DISK, "blkio.throttle.read_bps_device")):
        if not os.access(GROUPS / name / "cgroup.procs", os.W_OK):
            return f"there is no control group of version 1 for {name} that may be written"
        probe = GROUPS / name / f"sm{uuid.uuid4().hex[:6]}"
        try:
            probe.mkdir()
            has_it = (probe / needed).exists()
            probe.rmdir()
        except OSError as error:
            return f"no control group can be made for {name}: {error}"
        if not has_it:
            return f"this kernel has no {needed}"
    return ""


class ProcessLimits:
    """Groups of one process. Close it."""

    def __init__(self, process_id: int) -> None:
        self._process_id = process_id
        self._mark = f"sm{uuid.uuid4().hex[:6]}"
        self._made: list[Path] = []

    def set_processor(self, share: float) -> None:
        """Let it have so much of one core; at least a hundredth."""
        group = self._group(PROCESSOR)
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
        (group / "cpu.cfs_quota_us").write_text(str(max(1000, int(share * PERIOD_MICROSECONDS))))

    def set_disk(self, bytes_per_second: float, path: Path) -> None:
        """Let it read no more than so much from the disk that a path lies on."""
        group = self._group(DISK)
        (group / "blkio.throttle.read_bps_device").write_text(f"{_disk_of(path)} {int(bytes_per_second)}")

    def close(self) -> None:
        """Lift all limits. May be called twice, and after the process has ended."""
        made, self._made = self._made, []
        for group in made:
            with contextlib.suppress(OSError):  # it has ended
                (group.parent / "cgroup.procs").write_text(str(self._process_id))
            with contextlib.suppress(OSError):
                group.rmdir()

    def _group(self, name: str) -> Path:
        group = GROUPS / name / self._mark
        if group not in self._made:
            group.mkdir()
            self._made.append(group)
            (group / "cgroup.procs").write_text(str(self._process_id))
        return group

    def __enter__(self) -> ProcessLimits:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _disk_of(path: Path) -> str:
    """Return the numbers of the whole disk that a path lies on: limits are not for partitions."""
    device = os.stat(path).st_dev
    here = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    whole = here.parent if (here / "partition").exists() else here
    return (whole / "dev").read_text().strip()
