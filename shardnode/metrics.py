"""The series of a shard node, and the page that serves them.

Covers: names, labels, what each counts. Does not cover: who moves them (work/slice_at_work.py, sessions/session.py).
Counters are moved where the work is; sizes are read when the page is asked for.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from common.program.scraped_counter import ScrapedCounter

ROUND_SECONDS_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class NodeMetrics:
    """All series of one node process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.rss_bytes = Gauge("shardmesh_node_rss_bytes", "Resident set size of the process.", registry=r)
        self.window_bytes = Gauge("shardmesh_node_window_bytes", "Size of the memory window.", registry=r)
        self.resident_bytes = Gauge("shardmesh_node_resident_bytes", "Weights that stay in memory.", registry=r)
        self.peak_weight_bytes = Gauge(
            "shardmesh_node_peak_weight_bytes", "Most weight bytes ever held at once.", registry=r
        )
        self.kv_bytes = Gauge("shardmesh_node_kv_bytes", "Keys and values reserved.", registry=r)
        self.kv_budget_bytes = Gauge("shardmesh_node_kv_budget_bytes", "Most that may be reserved.", registry=r)
        self.sequences = Gauge("shardmesh_node_sequences", "Sequences open now.", registry=r)
        self.read_bytes = ScrapedCounter("shardmesh_node_read_bytes", "Weight bytes read from disk.", registry=r)
        self.tile_wait_seconds = Counter(
            "shardmesh_node_tile_wait_seconds", "Time that kernels waited for weights.", registry=r
        )
        self.queue_seconds = ScrapedCounter(
            "shardmesh_node_queue_seconds", "Time that blocks waited for another session's.", registry=r
        )
        self.core_wait_seconds = ScrapedCounter(
            "shardmesh_node_core_wait_seconds", "Time in kernels while threads were ready and had no core.", registry=r
        )
        self.compute_seconds = Histogram(
            "shardmesh_node_compute_seconds", "Time in kernels, per block.", ["kind"],
            buckets=ROUND_SECONDS_BUCKETS, registry=r,
        )  # fmt: skip
        self.sweeps = Counter("shardmesh_node_sweeps", "Sweeps begun.", registry=r)
        self.failures = Counter(
            "shardmesh_node_failures", "Sessions that ended in an error, by reason.", ["reason"], registry=r
        )
