"""The series of a coordinator. Covers: names, labels, what each counts. Does not cover: who moves them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from common.program.scraped_counter import ScrapedCounter

ROUND_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
TOKEN_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


class CoordinatorMetrics:
    """All series of one coordinator process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.rss_bytes = Gauge("shardmesh_coordinator_rss_bytes", "Resident set size of the process.", registry=r)
        self.window_bytes = Gauge("shardmesh_coordinator_window_bytes", "Size of the head's window.", registry=r)
        self.resident_bytes = Gauge(
            "shardmesh_coordinator_resident_bytes", "Head, norms and biases that stay in memory.", registry=r
        )
        self.read_bytes = ScrapedCounter("shardmesh_coordinator_read_bytes", "Weight bytes read from disk.", registry=r)
        self.round_trip_seconds = Histogram(
            "shardmesh_coordinator_round_trip_seconds", "One round with one node, from send to collected.", ["rank"],
            buckets=ROUND_BUCKETS, registry=r,
        )  # fmt: skip
        self.slowest_rounds = Counter(
            "shardmesh_coordinator_slowest_rounds", "Rounds in which this rank worked longest.", ["rank"], registry=r
        )
        self.last_rounds = Counter(
            "shardmesh_coordinator_last_rounds", "Rounds in which this rank's answer came last.", ["rank"], registry=r
        )
        self.critical_path_seconds = Counter(
            "shardmesh_coordinator_critical_path_seconds",
            "Where sweeps went: in each round the last node's, by what it waited for or did; the coordinator's own.",
            ["node", "cause"], registry=r,
        )  # fmt: skip
        self.link_echo_seconds = Gauge(
            "shardmesh_coordinator_link_echo_seconds", "Round trip of a few bytes that nobody computes with.", ["node"],
            registry=r,
        )  # fmt: skip
        self.replayed_sequences = Counter(
            "shardmesh_coordinator_replayed_sequences", "Answers that went on after nodes were lost and reached again.",
            registry=r,
        )  # fmt: skip
        self.head_seconds = Histogram(
            "shardmesh_coordinator_head_seconds", "Final norm, head and sampling of a sweep.",
            buckets=ROUND_BUCKETS, registry=r,
        )  # fmt: skip
        self.sweep_seconds = Histogram(
            "shardmesh_coordinator_sweep_seconds", "One sweep over all blocks.", buckets=TOKEN_BUCKETS, registry=r
        )
        self.time_to_first_token_seconds = Histogram(
            "shardmesh_coordinator_time_to_first_token_seconds", "From a request's arrival to its first token.",
            buckets=TOKEN_BUCKETS, registry=r,
        )  # fmt: skip
        self.time_per_token_seconds = Histogram(
            "shardmesh_coordinator_time_per_token_seconds", "Between a request's tokens.",
            buckets=TOKEN_BUCKETS, registry=r,
        )  # fmt: skip
        self.tokens = Counter("shardmesh_coordinator_tokens", "Tokens by kind.", ["kind"], registry=r)
        self.requests = Counter("shardmesh_coordinator_requests", "Requests by outcome.", ["outcome"], registry=r)
        self.loads = Counter("shardmesh_coordinator_loads", "Loads of models by outcome.", ["outcome"], registry=r)
        self.sequences = Gauge("shardmesh_coordinator_sequences", "Sequences in the batch.", registry=r)
        self.node_failures = Counter(
            "shardmesh_coordinator_node_failures", "Failures that nodes reported or were found in.", ["reason"],
            registry=r,
        )  # fmt: skip
