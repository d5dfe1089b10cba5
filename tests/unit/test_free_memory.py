"""Is the memory that may still be taken the least of what the machine and every control group allow?

Covers: that, and what the group that limits this process has and may have.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from common.machine.free_memory import GroupMemory, free_memory_bytes, group_memory

MB = 1_000_000


def write(root: Path, files: dict[str, str]) -> None:
    """Write a pretended /proc and /sys."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_group_of_version_1_limits(tmp_path: Path) -> None:
    """Its own limit counts, and its page cache does not count as used."""
    write(tmp_path, {
        "proc/self/cgroup": "5:cpu:/\n4:memory:/mesh/inner\n0::/\n",
        "sys/fs/cgroup/memory/mesh/inner/memory.limit_in_bytes": str(700 * MB),
        "sys/fs/cgroup/memory/mesh/inner/memory.usage_in_bytes": str(300 * MB),
        "sys/fs/cgroup/memory/mesh/inner/memory.stat": f"total_inactive_file {40 * MB}\ntotal_active_file {60 * MB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
    })  # fmt: skip
    assert free_memory_bytes(tmp_path) == 500 * MB


def test_the_tightest_level_of_version_2_limits(tmp_path: Path) -> None:
    """A parent's limit counts too; "max" is none."""
    write(tmp_path, {
        "proc/self/cgroup": "0::/user.slice/mesh.service\n",
        "sys/fs/cgroup/user.slice/mesh.service/memory.max": "max\n",
        "sys/fs/cgroup/user.slice/mesh.service/memory.current": "5\n",
        "sys/fs/cgroup/user.slice/memory.max": f"{100 * MB}\n",
        "sys/fs/cgroup/user.slice/memory.current": f"{70 * MB}\n",
        "sys/fs/cgroup/user.slice/memory.stat": f"inactive_file {5 * MB}\n",
    })  # fmt: skip
    assert free_memory_bytes(tmp_path) == 35 * MB


def test_without_groups_the_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS, and where /proc shows nothing, what the system calls available is what may be taken."""
    available = psutil.virtual_memory()._replace(available=123 * MB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    assert free_memory_bytes(tmp_path) == 123 * MB


def test_a_group_over_its_limit_leaves_nothing_and_not_less(tmp_path: Path) -> None:
    """Never a negative number."""
    write(tmp_path, {
        "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "10", "sys/fs/cgroup/a/memory.current": "20",
    })  # fmt: skip
    assert free_memory_bytes(tmp_path) == 0


def test_the_group_that_limits_a_process_is_the_one_that_is_told_of(tmp_path: Path) -> None:
    """The tightest limit of its levels, with the use and the page cache of the same level."""
    write(tmp_path, {
        "proc/self/cgroup": "0::/mesh.slice/node.service\n",
        "sys/fs/cgroup/mesh.slice/node.service/memory.max": f"{90 * MB}\n",
        "sys/fs/cgroup/mesh.slice/node.service/memory.current": f"{50 * MB}\n",
        "sys/fs/cgroup/mesh.slice/memory.max": f"{80 * MB}\n",
        "sys/fs/cgroup/mesh.slice/memory.current": f"{70 * MB}\n",
        "sys/fs/cgroup/mesh.slice/memory.stat": f"anon 1\ninactive_file {5 * MB}\nactive_file {2 * MB}\n",
    })  # fmt: skip
    assert group_memory(tmp_path) == GroupMemory(
        used_bytes=70 * MB, page_cache_bytes=7 * MB, limit_bytes=80 * MB
    )  # fmt: skip


def test_without_a_limit_a_process_is_told_of_its_own_group(tmp_path: Path) -> None:
    """Of version 1 too, whose "no limit" is a number."""
    write(tmp_path, {
        "proc/self/cgroup": "4:memory:/mesh/inner\n",
        "sys/fs/cgroup/memory/mesh/inner/memory.limit_in_bytes": "9223372036854771712",
        "sys/fs/cgroup/memory/mesh/inner/memory.usage_in_bytes": str(30 * MB),
        "sys/fs/cgroup/memory/mesh/memory.limit_in_bytes": "9223372036854771712",
        "sys/fs/cgroup/memory/mesh/memory.usage_in_bytes": str(40 * MB),
    })  # fmt: skip
    assert group_memory(tmp_path) == GroupMemory(used_bytes=30 * MB)


def test_the_whole_machine_is_no_group_but_with_a_limit_of_its_own(tmp_path: Path) -> None:
    """What all others use would be told as this process's; in a container the top has the container's limit."""
    top = "sys/fs/cgroup/memory"
    write(tmp_path, {
        "proc/self/cgroup": "4:memory:/\n", f"{top}/memory.limit_in_bytes": "9223372036854771712",
        f"{top}/memory.usage_in_bytes": str(900 * MB),
    })  # fmt: skip
    assert group_memory(tmp_path) == group_memory(tmp_path / "nowhere") == GroupMemory()
    write(tmp_path, {f"{top}/memory.limit_in_bytes": str(950 * MB)})
    assert group_memory(tmp_path) == GroupMemory(used_bytes=900 * MB, limit_bytes=950 * MB)


def test_a_process_that_is_put_into_another_group_is_found_there(tmp_path: Path) -> None:
    """Where its groups' files lie is remembered only as long as the kernel names the same groups."""
    for group, used in (("one", 3 * MB), ("two", 5 * MB)):
        write(tmp_path, {
            "proc/self/cgroup": f"0::/{group}\n",
            f"sys/fs/cgroup/{group}/memory.max": "max\n",
            f"sys/fs/cgroup/{group}/memory.current": f"{used}\n",
        })  # fmt: skip
        assert group_memory(tmp_path).used_bytes == used
