"""How much memory weights take in this process, and what was read from disk for them.

Covers: series of a window, of what stays and of reading, over the lives of several slices or models.
Does not cover: the memory and the reads themselves (weights/tile_source.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from common.program.scraped_series import ScrapedCounter, ScrapedGauge

if TYPE_CHECKING:  # kernels come with it, which a coordinator without a model has no use for
    from common.weights.tile_source import TileStats

PAGE_SECONDS = 0.02
"""One page asks for six numbers of the same moment."""


class WeightSeries:
    """Weights of one process."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        """Args: prefix: of the names, such as shardmesh_node."""
        r = registry
        self._window = ScrapedGauge(f"{prefix}_window_bytes", "Size of the window that weights are read into.",
                                    registry=r)  # fmt: skip
        self._resident = ScrapedGauge(f"{prefix}_resident_bytes", "Weights that stay in memory.", registry=r)
        self._read_bytes = ScrapedCounter(
            f"{prefix}_read_bytes", "Weight bytes that readers have read; those that kernels take from the page cache "
            "are not among them.", registry=r,
        )  # fmt: skip
        self._cached_bytes = ScrapedCounter(
            f"{prefix}_cached_read_bytes", "Weight bytes that kernels took from the page cache themselves.", registry=r
        )
        self._read_seconds = ScrapedCounter(
            f"{prefix}_read_seconds", "Time that reads of weights took, of all reads in flight together.", registry=r
        )
        self._in_flight = ScrapedGauge(f"{prefix}_reads_in_flight", "Reads of weights under way or asked for.",
                                       registry=r)  # fmt: skip
        self._last: list[tuple[float, TileStats]] = []
        self.let_go()

    def follow(self, now: Callable[[], TileStats]) -> None:
        """Show these weights from now on. Args: now: asked when the page is."""
        self.let_go()
        last = self._last = []

        def stats() -> TileStats:
            at = time.monotonic()
            if not last or at - last[-1][0] >= PAGE_SECONDS:
                last[:] = [(at, now())]
            return last[-1][1]

        self._window.show(lambda: stats().window_bytes)
        self._resident.show(lambda: stats().resident_bytes)
        self._in_flight.show(lambda: stats().reads_in_flight)
        self._read_bytes.set_function(lambda: stats().bytes_read_total)
        self._cached_bytes.set_function(lambda: stats().cached_bytes_total)
        self._read_seconds.set_function(lambda: stats().read_nanoseconds / 1e9)

    def let_go(self) -> None:
        """Show that there are none any more; what was read stays counted."""
        self._last.clear()  # to the last byte
        for gauge in (self._window, self._resident, self._in_flight):
            gauge.show(lambda: 0)
        for counter in (self._read_bytes, self._cached_bytes, self._read_seconds):
            counter.let_go()
