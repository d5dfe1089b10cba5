"""The series of rounds: who is waited for, what goes to and fro and over what, what nodes fail in.

Covers: their names, and that a node which is a member no more has none. Does not cover: who moves them
(round_metrics.py, ranks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from common.errors import ShardmeshError
from common.program.tallies import CounterTallies, GaugeTallies, HistogramTallies
from coordinator.ranks.path_series import PathSeries
from coordinator.ranks.transports.carriers import CARRIERS, Carrier

ROUND_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
"""Bounds of buckets: from a round on one machine to one of a long prompt over a slow link."""
PREFIX = "shardmesh_coordinator"


class RoundSeries:
    """Series by node; in a run without a mesh nodes are node0, node1 and on. The engine's thread moves them."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Args: registry: the process's; one of its own where nobody looks."""
        r = registry or CollectorRegistry()
        self.is_member: Callable[[str], bool] = lambda name: True
        """Tells whether there is such a node still; series of others go with the next page."""
        node = ["node"]
        self.round_trip_seconds = HistogramTallies(
            f"{PREFIX}_round_trip_seconds", "One round with one node, from its first message to the node's answer.",
            node, bounds=ROUND_SECONDS, registry=r, keeps=self.keeps,
        )  # fmt: skip
        self.sent_bytes = CounterTallies(
            f"{PREFIX}_round_sent_bytes", "Bytes of messages to a node; not of tensors in memory that both see.",
            node, registry=r, keeps=self.keeps,
        )  # fmt: skip
        self.received_bytes = CounterTallies(
            f"{PREFIX}_round_received_bytes", "Bytes of a node's answers to rounds, likewise.", node, registry=r,
            keeps=self.keeps,
        )  # fmt: skip
        self.slowest_rounds = CounterTallies(
            f"{PREFIX}_slowest_rounds", "Rounds in which this node worked longest.", node, registry=r, keeps=self.keeps
        )
        self.last_rounds = CounterTallies(
            f"{PREFIX}_last_rounds", "Rounds in which this node's answer came last.", node, registry=r, keeps=self.keeps
        )
        self.node_failures = CounterTallies(
            f"{PREFIX}_node_failures", "Failures that a node reported or was found in.", ["node", "reason"], registry=r,
            keeps=self.keeps,
        )  # fmt: skip
        self.node_slow = GaugeTallies(
            f"{PREFIX}_node_slow", "1 while this node takes much longer than such rounds took before.", node,
            registry=r, keeps=self.keeps,
        )  # fmt: skip
        self.transport = GaugeTallies(
            f"{PREFIX}_round_transport", "1 for what carries rounds to a node while a session with it is open, else 0.",
            ["node", "transport"], registry=r, keeps=self.keeps,
        )  # fmt: skip
        self.fell_back = GaugeTallies(
            f"{PREFIX}_round_transport_fallback",
            "1 while rounds to this node go over gRPC, since frames were tried and could not be had.", node,
            registry=r, keeps=self.keeps,
        )  # fmt: skip
        self.path = PathSeries(r, self.keeps)

    def failed(self, node: str, error: ShardmeshError) -> None:
        """Count a failure. Args: node: empty where only the sum of all is wrong."""
        self.node_failures.of(node, error.reason).value += 1

    def carried(self, node_names: Sequence[str], carriers: Sequence[Carrier], *, is_open: bool) -> None:
        """Show what carries rounds to nodes from now on, or that nothing does any more. Args: both by rank."""
        for node, carrier in zip(node_names, carriers, strict=True):
            for name in CARRIERS:
                self.transport.of(node, name).value = float(is_open and name == carrier.name)
            self.fell_back.of(node).value = float(is_open and carrier.is_fallback)

    def slow_noted(self, node_names: Sequence[str]) -> Callable[[int, bool], None]:
        """Return what shows whether a node is slow, by rank. Args: node_names: by rank."""
        slow = [self.node_slow.of(name) for name in node_names]

        def noted(rank: int, is_slow: bool) -> None:
            slow[rank].value = float(is_slow)

        return noted

    def keeps(self, node: str) -> bool:
        """Tell whether a node's series stay; what no node is to blame for does."""
        return not node or self.is_member(node)
