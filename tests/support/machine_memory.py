"""A memory controller for the systemd of a machine in a container, and what it does to that machine's services.

    memory = MachineMemory.make()                 # None: this system has none that could be lent
    subprocess.Popen(memory.command(["systemd-nspawn", ...]))
    machine.must(*TAKE_OVER), machine.must("systemctl", "daemon-reexec")
    memory.of("shardnode").limit_bytes()

Covers: control groups of version 1. systemd-nspawn lets its machine see them but not write; what it sees begins at the
group that nspawn itself is in, so a group of our own is all that it gets to write to.
Does not cover: version 2 (nobody has tried), the machine (systemd_machine.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tests.support.waiting import wait_until

GROUPS = Path("/sys/fs/cgroup/memory")
TAKE_OVER = ("mount", "-o", "remount,rw,bind", str(GROUPS))
"""What the machine's root runs. Its systemd looks for controllers when it starts, or is started again."""
LIMIT_SECONDS = 10.0


class ServiceMemory:
    """What the kernel counts for one service."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def limit_bytes(self) -> int:
        """Return the most that the service may take, page cache included."""
        return int((self._directory / "memory.limit_in_bytes").read_text())

    def peak_bytes(self) -> int:
        """Return the most that the service has taken, page cache included."""
        return int((self._directory / "memory.max_usage_in_bytes").read_text())

    def ended_for_want(self) -> int:
        """Return how many of its processes the kernel has ended because of the limit."""
        lines = (self._directory / "memory.oom_control").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])


class MachineMemory:
    """A group that one machine has to itself. Close it once the machine is off."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def make(cls) -> MachineMemory | None:
        """Return an empty group without a limit; None if there can be none."""
        if not (GROUPS / "memory.limit_in_bytes").exists() or not os.access(GROUPS, os.W_OK):
            return None
        directory = GROUPS / f"shardmesh-machine-{os.getpid()}"
        try:
            directory.mkdir(exist_ok=True)
        except OSError:
            return None
        return cls(directory)

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that first enters the group and then becomes `command`."""
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._directory / "cgroup.procs"), *command]

    def of(self, service: str) -> ServiceMemory:
        """Return the memory of a service that runs."""
        return ServiceMemory(self._directory / "system.slice" / f"{service}.service")

    def close(self) -> None:
        """Remove the group and those that the machine made in it."""
        wait_until(self._is_removed, limit_seconds=LIMIT_SECONDS, what=f"{self._directory} is empty and removed")

    def _is_removed(self) -> bool:
        for directory, _, _ in os.walk(self._directory, topdown=False):
            try:
                Path(directory).rmdir()
            except OSError:  # a process in it takes a moment to end
                return False
        return not self._directory.exists()
