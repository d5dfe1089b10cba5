"""What every program of ours shows of itself: which build it is, since when it runs, and its memory.

Covers: a registry to begin with, the process's own memory and that of its control group, read with each page.
Does not cover: what memory is used for (weight_series.py, and the rooms that use it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, disable_created_metrics
from prometheus_client.registry import Collector

from common.machine.free_memory import group_memory
from common.machine.operating_system import own_memory, own_rss_bytes
from common.program.kept_lines import About, Family, Row
from common.program.scraped_series import ScrapedGauge
from common.program.state_files import damaged_count
from common.program.tallies import GaugeTallies
from common.program.version import program_version

PSS_SECONDS, STEADY_PSS_SECONDS, PSS_MOVED = 30.0, 300.0, 0.01
"""A value of the proportional set size is shown for so long, and longer while what is resident is within so much of
what it was: the kernel walks every page of the process for a new one, which takes it milliseconds."""
GROUP_SECONDS = 0.5
"""One page asks for three numbers of the same moment."""

T = TypeVar("T")


def make_registry(program: str) -> CollectorRegistry:
    """Return a registry that says which program this is, in which version, and what the system counts for it."""
    # They would be a second series beside every counter, which nobody asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library's
    registry = CollectorRegistry()
    build = ScrapedGauge(
        "shardmesh_build_info", "Which program and which version of it: always 1.", ["version", "program"],
        registry=registry,
    )  # fmt: skip
    build.set_function(lambda: {(program_version(), program): 1})
    registry.register(SystemSeries())
    return registry


class SystemSeries(Collector):
    """What the library asks the system about a process (process_...), one number a family, with lines that are kept."""

    def __init__(self) -> None:
        self._librarys = ProcessCollector(registry=None)
        self._known: dict[str, tuple[About, Row]] = {}

    def collect(self) -> Iterable[Metric]:
        """Return the families with their numbers of this moment."""
        found = []
        for metric in self._librarys.collect():
            known = self._known.get(metric.name)
            if known is None:
                about = About(metric)
                known = self._known[metric.name] = (about, Row(about.places(())))
            found.append(Family(known[0], [(known[1], (metric.samples[0].value,))]))
        return found


def show_damaged_state(prefix: str, registry: CollectorRegistry) -> None:
    """Show how much state was damaged, of a program that keeps some. Args: prefix: as MemorySeries's."""
    damaged = ScrapedGauge(
        f"{prefix}_damaged_state_files", "Files of state that were damaged or gone, and read from their copies, "
        "since the program started, which mends them.", registry=registry,
    )  # fmt: skip
    damaged.show(damaged_count)


class MemorySeries:
    """Memory of this process, and of the control group that limits it."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        """Args: prefix: of the names, such as shardmesh_node."""
        r = registry
        rss = ScrapedGauge(f"{prefix}_rss_bytes", "Resident set size: pages in memory, shared ones counted whole.",
                           registry=r)  # fmt: skip
        rss.show(own_rss_bytes)
        pss = ScrapedGauge(
            f"{prefix}_pss_bytes", "Proportional set size: a page that n processes share counts 1/n; 0 where nobody "
            "tells. At most 30 s old, or 5 min while the resident set is within 1 % of what it was.", registry=r,
        )  # fmt: skip
        pss.show(KeptPss().bytes)
        self.budget_bytes = GaugeTallies(
            f"{prefix}_memory_budget_bytes", "Most memory that the process was told to take; 0: it was told none.",
            registry=r,
        ).of()  # fmt: skip
        now = kept_for(GROUP_SECONDS, group_memory)
        group = ScrapedGauge(
            f"{prefix}_group_memory_bytes", "Memory of the process's control group, page cache included; 0 where there "
            "is none.", registry=r,
        )  # fmt: skip
        group.show(lambda: now().used_bytes)
        cache = ScrapedGauge(
            f"{prefix}_group_page_cache_bytes", "Of the control group's memory: page cache, which goes when the memory "
            "is needed.", registry=r,
        )  # fmt: skip
        cache.show(lambda: now().page_cache_bytes)
        limit = ScrapedGauge(
            f"{prefix}_group_memory_limit_bytes",
            "Most memory that the control group may take; 0: no limit.",
            registry=r,
        )
        limit.show(lambda: now().limit_bytes)


class KeptPss:
    """The proportional set size of this process, which is dear to read. From several threads."""

    def __init__(
        self, read: Callable[[], int] = lambda: own_memory().pss_bytes, resident: Callable[[], int] = own_rss_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._read, self._resident, self._clock = read, resident, clock
        self._last: tuple[float, int, float] | None = None

    def bytes(self) -> float:
        """Return it as it was PSS_SECONDS ago at most, or longer while the process was as large as it is now."""
        now, resident = self._clock(), self._resident()
        if self._last is not None:
            at, before, shown = self._last
            is_steady = abs(resident - before) <= PSS_MOVED * before
            if now - at < (STEADY_PSS_SECONDS if is_steady else PSS_SECONDS):
                return shown
        found = float(self._read())
        self._last = (now, resident, found)
        return found


def kept_for(seconds: float, read: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> Callable[[], T]:
    """Return what asks `read` only when its last answer is older than that. From several threads."""
    last: list[tuple[float, T]] = []

    def value() -> T:
        now = clock()
        if not last or now - last[-1][0] >= seconds:
            last[:] = [(now, read())]
        return last[-1][1]

    return value
