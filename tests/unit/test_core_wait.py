"""Is it counted how long threads were ready and had no core, on a system that tells and on one that does not?

Covers: common/machine/core_wait.py. Does not cover: what is made of it (coordinator/ranks/critical_path.py).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from common.machine import core_wait
from common.machine.core_wait import StarvedTime


def wait(tasks: Path, thread: int, nanoseconds: int) -> None:
    """Have a thread have waited so long, as the kernel writes it."""
    (tasks / str(thread)).mkdir(exist_ok=True)
    (tasks / str(thread) / "schedstat").write_text(f"123 {nanoseconds} 7\n")


def open_files() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of threads, which is looked at each time."""
    monkeypatch.setattr(core_wait, "LOOK_SECONDS", 0.0)
    return tmp_path


def test_all_threads_count_those_that_come_and_those_that_have_ended(tasks: Path) -> None:
    """What one has waited before it ended stays counted, so that the count only grows."""
    wait(tasks, 1, 100)
    wait(tasks, 2, 10)
    starved = StarvedTime(str(tasks))
    assert starved.nanoseconds() == 0, "what was before it was made"
    wait(tasks, 1, 150)
    wait(tasks, 3, 5)
    (tasks / "2" / "schedstat").unlink()
    assert starved.nanoseconds() == 55
    wait(tasks, 1, 160)
    assert starved.nanoseconds() == 65


def test_a_threads_file_stays_open_only_as_long_as_the_thread_is_there(tasks: Path) -> None:
    """No descriptor is left of threads that have ended, nor of who counts no more."""
    before = open_files()
    for thread in range(5):
        wait(tasks, thread, 100)
    starved = StarvedTime(str(tasks))
    assert open_files() == before + 5
    for thread in range(3):
        shutil.rmtree(tasks / str(thread))
    starved.nanoseconds()
    assert open_files() == before + 2
    del starved
    assert open_files() == before


def test_one_that_is_closed_lets_go_of_its_files_and_counts_no_more(tasks: Path) -> None:
    """Whoever still holds it, such as ranks of a node that was lost, holds no descriptors; its count stays."""
    before = open_files()
    wait(tasks, 1, 100)
    starved = StarvedTime(str(tasks))
    wait(tasks, 1, 150)
    assert starved.nanoseconds() == 50
    starved.close()
    wait(tasks, 1, 900)
    assert (starved.nanoseconds(), open_files()) == (50, before)
    starved.close()


def test_however_many_threads_come_only_some_of_their_files_stay_open(tasks: Path) -> None:
    """Descriptors go back to where they were; what the others wait is counted all the same."""
    before = open_files()
    for thread in range(core_wait.MOST_KEPT):
        wait(tasks, thread, 100)
    starved = StarvedTime(str(tasks))
    for thread in range(3 * core_wait.MOST_KEPT):
        wait(tasks, thread, 100)
    assert starved.nanoseconds() == 2 * core_wait.MOST_KEPT * 100
    assert open_files() == before + core_wait.MOST_KEPT


def test_it_is_looked_at_some_times_a_second_only(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for each round gets what the last look found."""
    starved = StarvedTime(str(tasks))
    wait(tasks, 1, 100)
    assert starved.nanoseconds() == 100
    monkeypatch.setattr(core_wait, "LOOK_SECONDS", 60.0)
    wait(tasks, 1, 900)
    assert starved.nanoseconds() == 100


def test_where_the_system_does_not_tell_it_is_nothing(tmp_path: Path) -> None:
    """Other systems than Linux, and kernels that do not count."""
    assert StarvedTime(str(tmp_path / "nowhere")).nanoseconds() == 0
    wait(tmp_path, 1, 5)
    (tmp_path / "1" / "schedstat").write_text("")
    assert StarvedTime(str(tmp_path)).nanoseconds() == 0
