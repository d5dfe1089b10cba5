"""Does the benchmark read control groups of both versions, and find the place where it may make some?

Covers: the kernel's texts, on directories that look like groups. Does not cover: limits at work (`make bench`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.memory_group import MemoryGroup, can_hold_groups, memory_mounts, own_groups

OWN_GROUPS = "4:memory:/jobs/seven\n3:cpuset:/\n1:name=systemd:/\n0::/user.slice/a.scope\n"
MOUNTS = (
    "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
    "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
    "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
)


def test_the_own_group_is_found_for_each_version() -> None:
    """Version 1 has a path for the memory controller, version 2 has one for all."""
    assert own_groups(OWN_GROUPS) == {1: "/jobs/seven", 2: "/user.slice/a.scope"}


def test_only_mounts_that_may_limit_memory_count() -> None:
    """Of version 1 the memory controller's mount alone; a mount of version 2 may have it."""
    assert list(memory_mounts(MOUNTS)) == [
        (Path("/sys/fs/cgroup/memory"), 1),
        (Path("/sys/fs/cgroup/unified"), 2),
    ]


def test_a_version_2_group_without_the_memory_controller_holds_no_groups(tmp_path: Path) -> None:
    """There is no file to turn it on in, or it is on already."""
    assert not can_hold_groups(tmp_path, 2)
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    assert can_hold_groups(tmp_path, 2)


@pytest.mark.parametrize(
    ("version", "files"),
    [
        (1, {"memory.max_usage_in_bytes": "700\n", "memory.oom_control": "oom_kill_disable 0\noom_kill 3\n"}),
        (2, {"memory.peak": "700\n", "memory.events": "low 0\noom 4\noom_kill 3\noom_group_kill 0\n"}),
    ],
)  # fmt: skip
def test_peak_and_ended_processes_are_read(tmp_path: Path, version: int, files: dict[str, str]) -> None:
    """Each version has its files; `oom` and `oom_group_kill` are other counts."""
    group = MemoryGroup(tmp_path, version)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert (group.peak_bytes(), group.oom_kills()) == (700, 3)


def test_a_kernel_without_a_peak_says_so(tmp_path: Path) -> None:
    """Version 2 has no memory.peak before Linux 5.19."""
    assert MemoryGroup(tmp_path, 2).peak_bytes() is None


def test_a_command_enters_the_group_before_it_becomes_the_program(tmp_path: Path) -> None:
    """Arguments arrive as they are, whatever is in them."""
    command = MemoryGroup(tmp_path, 1).command(["program", "a b", "$HOME"])
    assert command[-4:] == [str(tmp_path / "cgroup.procs"), "program", "a b", "$HOME"]
