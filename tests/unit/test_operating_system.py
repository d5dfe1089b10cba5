"""Does each thing that differs between systems work Linux's way and the other systems' way?

Covers: common/machine/operating_system.py, the other branch by pretending to be on it.
Does not cover: lifelines (common/program/lifecycle.py).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from common.machine import operating_system
from common.machine.operating_system import (
    end_with_parent,
    on_core,
    own_memory,
    process_memory,
    usable_core_count,
    wake_politely,
)

REPOSITORY = Path(__file__).resolve().parent.parent.parent
ON_LINUX = sys.platform == "linux"
linux_only = pytest.mark.skipif(not ON_LINUX, reason="what only Linux has")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to be on a system without /proc, prctl and sched_getaffinity."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda *arguments, **keywords: pytest.fail("prctl is Linux's"))


@linux_only
def test_only_processors_that_we_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a container or under taskset, the machine's number would be too large."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process_id: {0, 2, 5})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert usable_core_count() == 3


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_all_processors_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is at least one, also where the system does not tell."""
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_core_count() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_core_count() == 1


@linux_only
def test_waking_politely_is_a_batch_process_to_the_kernel() -> None:
    """What was asked for is what the kernel does, and asking twice does no harm."""
    ask = (
        "from common.machine.operating_system import wake_politely as w; w(); w(); import os; "
        "print(os.sched_getscheduler(0))"
    )
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert int(told.stdout) == os.SCHED_BATCH


def test_waking_politely_changes_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other systems have no such policy, and no error comes of it."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: pytest.fail("asked"), raising=False)
    wake_politely()


@linux_only
@pytest.mark.parametrize("index", [0, 1, 7])
def test_a_thread_keeps_to_its_core_for_a_while(index: int) -> None:
    """One of the cores that it may use, whatever the number; afterwards all of them, also when something fails."""
    allowed = os.sched_getaffinity(0)
    with on_core(index):
        assert os.sched_getaffinity(0) == {sorted(allowed)[index % len(allowed)]}
    with pytest.raises(ZeroDivisionError), on_core(index):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == allowed


@linux_only
def test_a_thread_that_may_not_choose_its_core_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the call is forbidden nothing changes."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with on_core(0):
        pass


def test_no_core_is_chosen_without_a_wish_or_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call at all is made."""
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("asked"), raising=False)
    with on_core(None):
        pass
    monkeypatch.setattr(sys, "platform", "darwin")
    with on_core(0):
        pass


@linux_only
def test_memory_is_what_proc_says() -> None:
    """Resident, its peak and the proportional size, in bytes; no larger than each other in this order."""
    memory = own_memory()
    assert 0 < memory.pss_bytes <= memory.peak_rss_bytes
    assert 0 < memory.rss_bytes <= memory.peak_rss_bytes
    assert memory.rss_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)


@linux_only
def test_the_peak_is_kept_when_memory_is_given_back() -> None:
    """Pages that were once written show in the peak and no longer in the present size."""
    before = own_memory().rss_bytes
    size = 150 << 20
    with mmap.mmap(-1, size) as pages:  # from the system itself: the heap may have this much free already
        for offset in range(0, size, mmap.PAGESIZE):
            pages[offset] = 1
        assert own_memory().rss_bytes > before + size // 2
    after = own_memory()
    assert after.peak_rss_bytes >= before + size // 2
    assert after.rss_bytes < after.peak_rss_bytes


@linux_only
def test_another_process_can_be_measured() -> None:
    """A node's memory is read by its process id."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 1 << 20 < process_memory(child.pid).rss_bytes < own_memory().rss_bytes
        child.communicate(b"\n")


@linux_only
def test_a_kernel_without_rollups_tells_no_proportional_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is missing on old kernels and in some sandboxes: that is no missing process."""
    read_text = Path.read_text

    def without_rollup(path: Path) -> str:
        if path.name == "smaps_rollup":
            raise FileNotFoundError(path)
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", without_rollup)
    memory = own_memory()
    assert memory.pss_bytes == 0
    assert memory.rss_bytes > 0


@linux_only
def test_a_process_that_may_not_be_looked_at_is_asked_for_by_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc is hidden there is the other systems' way."""

    def refuse(path: Path) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "read_text", refuse)
    memory = own_memory()
    assert memory.rss_bytes > 0
    assert memory.pss_bytes == 0


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_memory_is_what_psutil_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The present size stands for a peak that the system does not keep; there is no proportional size."""
    monkeypatch.setattr(operating_system, "_from_proc", lambda process_id: pytest.fail("there is no /proc"))
    memory = own_memory()
    assert memory.rss_bytes == memory.peak_rss_bytes > 0
    assert memory.pss_bytes == 0


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_process_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """Both ways say so alike."""
    if platform == "linux" and not ON_LINUX:
        pytest.skip("there is no /proc to ask")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(psutil.NoSuchProcess):
        process_memory(child.pid)


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
sys.stdin.read()
"""
CHILD = """
import os, sys
from common.machine.operating_system import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
import time
time.sleep(60)  # killed long before
"""


@linux_only
def test_a_child_that_asked_for_it_ends_when_its_parent_is_killed() -> None:
    """kill -9 of the parent leaves no child behind."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        try:
            parent.kill()
            gone, _ = psutil.wait_procs([child], timeout=10)
            assert gone == [child]
        finally:
            if child.is_running():
                child.kill()


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_ending_with_the_parent_is_the_lifelines_work() -> None:
    """Where there is no prctl, nothing is called."""
    end_with_parent()
