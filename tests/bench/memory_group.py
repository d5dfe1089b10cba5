"""How much memory does a command take with everything that it starts, and what if it may not have more?

    with MemoryGroup.create(limit_bytes=700_000_000) as group:
        subprocess.run(group.command(["coordinator-cli", ...]))
        group.peak_bytes(), group.oom_kills()

Covers: Linux control groups, version 1 and 2: a limit, the peak with the page cache in it, processes that the kernel
ended for want of memory; nothing is left, and what an earlier benchmark left when it was killed is removed.
Does not cover: systems without control groups (`create` says why, command_runs.py samples the processes instead).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import psutil

PREFIX = "shardmesh-bench-"
END_LIMIT_SECONDS = 15.0
_numbers = itertools.count()


class NoMemoryGroups(Exception):
    """This machine gives us no control group; the text says why."""


class MemoryGroup:
    """One control group. Use as a context manager: leaving it ends what still runs in it."""

    def __init__(self, directory: Path, version: int) -> None:
        self._directory = directory
        self._version = version

    @classmethod
    def create(cls, limit_bytes: int | None = None) -> MemoryGroup:
        """Make an empty group; swap counts against the limit. Raises: NoMemoryGroups."""
        parent, version = find_parent()
        remove_stale(parent)
        directory = parent / f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        try:
            directory.mkdir()
        except OSError as error:
            raise NoMemoryGroups(f"no group can be made in {parent} ({error.strerror})") from error
        group = cls(directory, version)
        try:
            if limit_bytes is not None:
                group._limit(limit_bytes)
        except OSError as error:
            group.close()
            raise NoMemoryGroups(f"{directory} takes no limit ({error.strerror})") from error
        return group

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that first enters the group and then becomes `command`."""
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._directory / "cgroup.procs"), *command]

    def add(self, process_id: int) -> None:
        """Move a running process here; what it has in memory already stays with the group it was in."""
        (self._directory / "cgroup.procs").write_text(str(process_id))

    def peak_bytes(self) -> int | None:
        """Return the most that the group ever held; None if this kernel keeps no peak (version 2 before 5.19)."""
        name = "memory.max_usage_in_bytes" if self._version == 1 else "memory.peak"
        try:
            return int((self._directory / name).read_text())
        except FileNotFoundError:
            return None

    def oom_kills(self) -> int:
        """Return how many processes of the group the kernel has ended because of the limit."""
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        for line in (self._directory / name).read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0

    def close(self) -> None:
        """End every process that still is in the group, and remove it."""
        _remove(self._directory, time.monotonic() + END_LIMIT_SECONDS)

    def __enter__(self) -> MemoryGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _limit(self, limit_bytes: int) -> None:
        if self._version == 1:
            (self._directory / "memory.limit_in_bytes").write_text(str(limit_bytes))
            with_swap = self._directory / "memory.memsw.limit_in_bytes"
            if with_swap.exists():
                with_swap.write_text(str(limit_bytes))
        else:
            (self._directory / "memory.max").write_text(str(limit_bytes))
            swap = self._directory / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")


def find_parent() -> tuple[Path, int]:
    """Return the directory in which groups may be made, and the version. Raises: NoMemoryGroups."""
    if sys.platform != "linux":
        raise NoMemoryGroups("this system has no control groups")
    own = own_groups(Path("/proc/self/cgroup").read_text())
    for root, version in memory_mounts(Path("/proc/self/mounts").read_text()):
        path = own.get(version, "/").lstrip("/")
        # A group of version 2 that has processes cannot have groups with limits, so there ours stand beside it.
        places = [root / path] if version == 1 else [(root / path).parent if path else root]
        for place in places:
            if can_hold_groups(place, version):
                return place, version
    raise NoMemoryGroups("no control group with memory in it may be written to (root can, mostly)")


def own_groups(text: str) -> dict[int, str]:
    """Return this process's group by version, from /proc/self/cgroup."""
    groups = {}
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            groups[2] = path
        elif "memory" in controllers.split(","):
            groups[1] = path
    return groups


def memory_mounts(text: str) -> Iterator[tuple[Path, int]]:
    """Yield where control groups are mounted, from /proc/self/mounts; version 1 only if it is the memory one."""
    for line in text.splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup" and "memory" in options.split(","):
            yield Path(place), 1
        elif kind == "cgroup2":
            yield Path(place), 2


def can_hold_groups(place: Path, version: int) -> bool:
    """Return whether groups with a memory limit can be made there; turns the memory controller on where need be."""
    if not os.access(place, os.W_OK):
        return False
    if version == 1:
        return (place / "memory.limit_in_bytes").exists()
    try:
        control = place / "cgroup.subtree_control"
        if "memory" not in control.read_text().split():
            control.write_text("+memory")
    except OSError:
        return False
    return True


def remove_stale(parent: Path) -> None:
    """Remove the groups of benchmarks that run no more."""
    for directory in parent.glob(f"{PREFIX}*"):
        process_id = directory.name.removeprefix(PREFIX).partition("-")[0]
        if process_id.isdigit() and not psutil.pid_exists(int(process_id)):
            _remove(directory, time.monotonic() + END_LIMIT_SECONDS)


def _remove(directory: Path, deadline: float) -> None:
    while directory.exists():
        for process_id in (directory / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process_id), signal.SIGKILL)
        try:
            directory.rmdir()
        except OSError:  # still busy: a process takes a moment to end
            if time.monotonic() > deadline:
                print(f"bench: {directory} cannot be removed; something in it does not end", file=sys.stderr)
                return
            time.sleep(0.05)
