"""How much memory may this process still take: what the machine has free, and what its control groups allow.

Covers: that, and what its own control group has and may have, for those who watch it. Control groups of both versions,
every level above the process. Elsewhere than on Linux: the machine alone.
Does not cover: what to do with it (program/memory_flags.py, weights/open_tiles.py).
Sources: the Linux kernel's admin-guide, cgroup-v1/memory and cgroup-v2.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from common.machine.kernel_files import content_of

UNLIMITED_BYTES = 1 << 60
"""What version 1 writes for "no limit" is a little below 2^63; nobody has this much."""
MOST_BYTES = 1 << 16
"""Of a file of a control group, which the kernel gives whole."""
_FILE_PAGES = re.compile(rb"^((?:total_)?(?:in)?active_file) (\d+)$", re.MULTILINE)


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
    found: list[tuple[int, int, str]] = []
    for level in _levels(root):
        used = _number(level.used_file)
        limit = _number(level.limit_file) or 0
        limit_bytes = limit if limit < UNLIMITED_BYTES else 0
        if used is not None and (limit_bytes or not level.is_top):
            found.append((limit_bytes, used, level.stat_file))
    if not found:
        return GroupMemory()
    limited = [one for one in found if one[0]]
    limit_bytes, used, stat_file = min(limited) if limited else found[0]
    return GroupMemory(used_bytes=used, page_cache_bytes=_reclaimable_bytes(stat_file), limit_bytes=limit_bytes)


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that can be taken without swapping and without meeting a limit.

    Args: root: where /proc and /sys lie; another one only in tests.
    """
    free = [psutil.virtual_memory().available]
    free += [limit - used for limit, used in _group_limits(root)]
    return max(0, min(free))


class _Level(NamedTuple):
    """Files of a group that this process is in."""

    limit_file: str
    used_file: str
    stat_file: str
    is_top: bool
    """Whether it is the group above all others."""


def _group_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, bytes used that cannot be reclaimed) of every group with a limit that this process is in."""
    for level in _levels(root):
        limit = _number(level.limit_file)
        used = _number(level.used_file)
        if limit is not None and used is not None and limit < UNLIMITED_BYTES:
            yield limit, used - _reclaimable_bytes(level.stat_file)


def _levels(root: Path) -> Sequence[_Level]:
    """Return this process's groups, each before the one above it."""
    try:
        said = content_of(f"{root}/proc/self/cgroup", MOST_BYTES)
    except OSError:
        return ()
    return _levels_of(root, said)


@functools.lru_cache(1)
def _levels_of(root: Path, said: bytes) -> Sequence[_Level]:
    """Return what `_levels` does. Args: said: of the groups by the kernel, seldom anything new."""
    found = []
    mount = root / "sys/fs/cgroup"
    for line in said.decode().splitlines():
        _, controllers, path = line.split(":", 2)
        relative = path.lstrip("/")
        if "memory" in controllers.split(","):
            group, limit, used = mount / "memory" / relative, "memory.limit_in_bytes", "memory.usage_in_bytes"
        elif not controllers:
            group, limit, used = mount / relative, "memory.max", "memory.current"
        else:
            continue
        for directory in (group, *group.parents):
            is_top = directory.name in ("cgroup", "memory") and directory.parent.name in ("fs", "cgroup")
            found.append(_Level(
                str(directory / limit), str(directory / used), str(directory / "memory.stat"), is_top
            ))  # fmt: skip
            if is_top:
                break
    return found


def _number(path: str) -> int | None:
    try:
        return int(content_of(path, MOST_BYTES))
    except (OSError, ValueError):  # no such controller here, or "max"
        return None


def _reclaimable_bytes(stat_file: str) -> int:
    """Return the page cache charged to a group: the kernel drops it before it runs out of memory."""
    try:
        stat = content_of(stat_file, MOST_BYTES)
    except OSError:
        return 0
    values = {name: int(value) for name, value in _FILE_PAGES.findall(stat)}
    for prefix in (b"total_", b""):  # version 1 counts the groups below only in total_*
        if prefix + b"inactive_file" in values:
            return values[prefix + b"inactive_file"] + values.get(prefix + b"active_file", 0)
    return 0
