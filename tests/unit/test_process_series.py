"""Does a program show its build, its memory and that of its control group, and not too often what is dear to read?

Covers: common/program/process_series.py. Does not cover: control groups themselves (test_free_memory.py).
"""

from __future__ import annotations

import os

import psutil
import pytest
from prometheus_client import CollectorRegistry

from common.machine.free_memory import GroupMemory
from common.program import process_series
from common.program.process_series import KeptPss, MemorySeries, kept_for, make_registry
from common.program.version import program_version


def test_a_registry_begins_with_the_build_and_the_start_of_the_process() -> None:
    """Mixed versions and restarts are seen by these two."""
    registry = make_registry("shardnode")
    labels = {"version": program_version(), "program": "shardnode"}
    assert registry.get_sample_value("shardmesh_build_info", labels) == 1
    started = registry.get_sample_value("process_start_time_seconds")
    assert started == pytest.approx(psutil.Process(os.getpid()).create_time(), abs=1.1)


def test_memory_is_that_of_this_process_and_of_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three numbers of the group of one moment; 0 for a limit that there is not."""
    group = GroupMemory(used_bytes=30, page_cache_bytes=20, limit_bytes=0)
    monkeypatch.setattr(process_series, "group_memory", lambda: group)
    registry = CollectorRegistry()
    memory = MemorySeries("x", registry)
    memory.budget_bytes.value = 7
    names = ("memory_budget_bytes", "group_memory_bytes", "group_page_cache_bytes", "group_memory_limit_bytes")
    assert [registry.get_sample_value(f"x_{name}") for name in names] == [7, 30, 20, 0]
    rss, pss = registry.get_sample_value("x_rss_bytes"), registry.get_sample_value("x_pss_bytes")
    assert rss is not None
    assert pss is not None
    assert rss == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)
    assert 0 <= pss <= rss * 1.05


def test_what_is_dear_to_read_is_read_once_in_a_while() -> None:
    """However often the page is asked for."""
    now, reads = [100.0], []

    def read() -> float:
        reads.append(now[0])
        return now[0]

    value = kept_for(5, read, lambda: now[0])
    assert [value(), value()] == [100, 100]
    now[0] = 104.9
    assert value() == 100
    now[0] = 105.0
    assert value() == 105
    assert reads == [100, 105]


def test_a_proportional_set_size_is_read_again_sooner_where_the_process_has_grown() -> None:
    """After half a minute, in small steps too; after five minutes else, since other processes change it as well."""
    now, resident, reads = [0.0], [1000], []

    def read() -> int:
        reads.append(now[0])
        return resident[0] // 2

    kept = KeptPss(read, lambda: resident[0], lambda: now[0])
    assert [kept.bytes(), kept.bytes()] == [500, 500]
    for at, size in (
        (29.0, 1500),
        (31.0, 1500),
        (62.0, 1505),
        (93.0, 1510),
        (124.0, 1516),
        (423.0, 1516),
        (424.0, 1516),
    ):
        now[0], resident[0] = at, size
        kept.bytes()
    assert reads == [0, 31, 124, 424]
    assert kept.bytes() == 758
