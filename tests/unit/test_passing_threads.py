"""Do threads of a pool come when work does, and go when there is none?

Covers: common/program/passing_threads.py. Does not cover: gRPC's use of it (the contract tests of every service).
"""

from __future__ import annotations

import threading

import pytest

from common.program.passing_threads import PassingThreads
from tests.support.waiting import wait_until


def named(name: str) -> int:
    """Return how many threads have names that begin so."""
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_threads_are_as_many_as_work_needs_and_end_when_there_is_none() -> None:
    """At most so many; what finds none waits its turn."""
    pool, gate = PassingThreads(4, "crowd", idle_seconds=0.05), threading.Event()
    futures = [pool.submit(lambda number=number: gate.wait(30) and number) for number in range(9)]
    assert named("crowd") == 4
    gate.set()
    assert [future.result(30) for future in futures] == list(range(9))
    wait_until(lambda: named("crowd") == 0, limit_seconds=30, what="no thread left")
    assert pool.submit(int, "7").result(30) == 7


def test_one_after_another_is_done_by_one_thread() -> None:
    """Who waits for work takes it before another is started."""
    pool = PassingThreads(4, "one")
    names = set()
    for _ in range(50):
        names.add(pool.submit(lambda: threading.current_thread().name).result(30))
        wait_until(lambda: pool._idle_count == 1, limit_seconds=30, what="a thread that waits")
    assert len(names) == 1
    pool.shutdown()
    assert named("one") == 0


def test_what_work_raises_is_its_futures_and_the_pool_goes_on() -> None:
    """Also what no program should catch elsewhere."""
    pool = PassingThreads(1, "faulty")

    def fails() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        pool.submit(fails).result(30)
    assert pool.submit(int, "7").result(30) == 7
    pool.shutdown()
    with pytest.raises(RuntimeError, match="no more work"):
        pool.submit(int, "7")


def test_work_that_has_not_begun_can_be_taken_back() -> None:
    """As whoever shuts the pool down may ask."""
    pool, gate = PassingThreads(1, "late"), threading.Event()
    first, second = pool.submit(gate.wait, 30), pool.submit(int, "7")
    wait_until(first.running, limit_seconds=30, what="the first one's turn")
    pool.shutdown(wait=False, cancel_futures=True)
    gate.set()
    assert first.result(30) is True
    assert second.cancelled()
