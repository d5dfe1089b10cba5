"""Is the memory that may still be taken the least of what the machine and every control group allow?"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from common.machine.free_memory import free_memory_bytes

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
