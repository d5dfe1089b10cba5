"""The series of a slice at work: what it holds, what it waits for, how long it computes.

Covers: their names. Does not cover: who moves them (slice_at_work.py), messages (sessions/session_series.py).
One of them outlives every slice that a node serves; without one, sizes are 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from common.program.scraped_series import ScrapedCounter, ScrapedGauge
from common.program.tallies import CounterTallies, SharedHistogramTallies
from common.program.weight_series import WeightSeries
from common.weights.slice_format import BLOCK_KINDS

if TYPE_CHECKING:
    from common.weights.tile_source import TileStats
    from shardnode.work.kv_cache import KvCache

COMPUTE_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
PREFIX = "shardmesh_node"


class WorkSeries:
    """Series of one node's work; whoever holds ShardNode.lock moves them."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Args: registry: the process's; one of its own where nobody looks."""
        r = registry or CollectorRegistry()
        self.weights = WeightSeries(PREFIX, r)
        self._peak = ScrapedGauge(f"{PREFIX}_peak_weight_bytes", "Most weight bytes held at once by the slice at work.",
                                  registry=r)  # fmt: skip
        self._kv = ScrapedGauge(f"{PREFIX}_kv_bytes", "Keys and values reserved.", registry=r)
        self._kv_budget = ScrapedGauge(f"{PREFIX}_kv_budget_bytes", "Most that may be reserved.", registry=r)
        self._sequences = ScrapedGauge(f"{PREFIX}_sequences", "Sequences open now.", registry=r)
        self.tile_wait_seconds = CounterTallies(
            f"{PREFIX}_tile_wait_seconds", "Time that kernels waited for weights.", registry=r
        ).of()
        self._queue = ScrapedCounter(
            f"{PREFIX}_queue_seconds", "Time that blocks waited for another session's.", registry=r
        )
        self._core_wait = ScrapedCounter(
            f"{PREFIX}_core_wait_seconds", "Time that threads, each by itself, were ready and had no core.", registry=r
        )
        compute = SharedHistogramTallies(
            f"{PREFIX}_compute_seconds", "Time in kernels, per block.", ["kind"], bounds=COMPUTE_SECONDS, registry=r
        )
        self.compute_seconds = {kind: compute.shared(kind) for kind in BLOCK_KINDS}
        self.let_go()

    def follow(self, tiles: Callable[[], TileStats], cache: KvCache) -> None:
        """Show this slice from now on. Args: tiles: asked when the page is."""
        self.weights.follow(tiles)
        self._peak.show(lambda: tiles().peak_held_bytes)
        self._kv.show(lambda: cache.reserved_bytes)
        self._kv_budget.show(lambda: cache.budget_bytes)
        self._sequences.show(lambda: cache.sequence_count)

    def follow_waits(self, queue_seconds: Callable[[], float], core_wait_seconds: Callable[[], float]) -> None:
        """Count what blocks of this slice wait for, beside what others did. Args: asked when the page is."""
        self._queue.set_function(queue_seconds)
        self._core_wait.set_function(core_wait_seconds)

    def let_go(self) -> None:
        """Show that there is no slice at work any more."""
        self.weights.let_go()
        self._queue.let_go()
        self._core_wait.let_go()
        for gauge in (self._peak, self._kv, self._kv_budget, self._sequences):
            gauge.show(lambda: 0)
