"""How much memory may this process still take: what the machine has free, and what its control groups allow.

Covers: that, and what its own control group has and may have, for those who watch it. Control groups of both versions,
every level above the process. Elsewhere than on Linux: the machine alone.
Does not cover: what to do with it (program/memory_flags.py, weights/open_tiles.py).
Sources: the Linux kernel's admin-guide, cgroup-v1/memory and cgroup-v2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from common.machine.kernel_files import content_of

UNLIMITED_BYTES = 1 << 60
"""What version 1 writes for "no limit" is a little below 2^63; nobody has this much."""
MOST_BYTES = 1 << 16
"""Of a file of a control group, which the kernel gives whole."""


@dataclass(frozen=True, kw_only=True)
class GroupMemory:
    """Bytes of one control group; all 0 where there is none."""

    used_bytes: int = 0
    """Page cache included."""
    page_cache_bytes: int = 0
    limit_bytes: int = 0
    """0: no limit."""


def group_memory(root: Path = Path("/")) -> GroupMemory:
    """Return the memory of the group that limits this process most; without a limit, of the one that it is in.

    The machine as a whole, the group above all others, counts only where it has a limit: in a container.
    Args: root: as free_memory_bytes.
    """
    found: list[tuple[int, int, Path]] = []
    for directory, (limit_file, used_file), is_top in _levels(root):
        used = _number(directory / used_file)
        limit = _number(directory / limit_file) or 0
        limit_bytes = limit if limit < UNLIMITED_BYTES else 0
        if used is not None and (limit_bytes or not is_top):
            found.append((limit_bytes, used, directory))
    if not found:
        return GroupMemory()
    limited = [one for one in found if one[0]]
    limit_bytes, used, directory = min(limited) if limited else found[0]
    return GroupMemory(used_bytes=used, page_cache_bytes=_reclaimable_bytes(directory), limit_bytes=limit_bytes)


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that can be taken without swapping and without meeting a limit.

    Args: root: where /proc and /sys lie; another one only in tests.
    """
    free = [psutil.virtual_memory().available]
    free += [limit - used for limit, used in _group_limits(root)]
    return max(0, min(free))


def _group_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, bytes used that cannot be reclaimed) of every group with a limit that this process is in."""
    for directory, names, _ in _levels(root):
        limit = _number(directory / names[0])
        used = _number(directory / names[1])
        if limit is not None and used is not None and limit < UNLIMITED_BYTES:
            yield limit, used - _reclaimable_bytes(directory)


def _levels(root: Path) -> Iterator[tuple[Path, tuple[str, str], bool]]:
    """Yield this process's groups, each before the one above it, with their files' names, and whether it is the top."""
    for group, names in _groups(root):
        for directory in (group, *group.parents):
            is_top = directory.name in ("cgroup", "memory") and directory.parent.name in ("fs", "cgroup")
            yield directory, names, is_top
            if is_top:
                break


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str]]]:
    """Yield this process's group directories, with the names of the files for its limit and its use."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        relative = path.lstrip("/")
        if "memory" in controllers.split(","):
            yield mount / "memory" / relative, ("memory.limit_in_bytes", "memory.usage_in_bytes")
        elif not controllers:
            yield mount / relative, ("memory.max", "memory.current")


def _number(path: Path) -> int | None:
    try:
        return int(content_of(path, MOST_BYTES))
    except (OSError, ValueError):  # no such controller here, or "max"
        return None


def _reclaimable_bytes(directory: Path) -> int:
    """Return the page cache charged to a group: the kernel drops it before it runs out of memory."""
    try:
        lines = content_of(directory / "memory.stat", MOST_BYTES).decode().splitlines()
    except OSError:
        return 0
    values = dict(line.split(maxsplit=1) for line in lines)
    for prefix in ("total_", ""):  # version 1 counts the groups below only in total_*
        if f"{prefix}inactive_file" in values:
            return int(values[f"{prefix}inactive_file"]) + int(values.get(f"{prefix}active_file", 0))
    return 0
