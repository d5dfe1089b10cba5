"""The series of the critical path: where sweeps went, and how far nodes are.

Covers: their names; every cause of a node is there from the start. Does not cover: who moves them (path_watch.py).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from common.program.tallies import CounterTallies, GaugeTallies, Keeps

PREFIX = "shardmesh_coordinator"


class PathSeries:
    """Series by node, of whom `node` is empty for what is the coordinator's own."""

    def __init__(self, registry: CollectorRegistry, keeps: Keeps) -> None:
        """Args: keeps: tells whether a node's series stay."""
        self.critical_path_seconds = CounterTallies(
            f"{PREFIX}_critical_path_seconds",
            "Where sweeps went: in each round the last node's, by what it waited for or did; the coordinator's own.",
            ["node", "cause"], registry=registry, keeps=keeps,
        )  # fmt: skip
        self.link_echo_seconds = GaugeTallies(
            f"{PREFIX}_link_echo_seconds", "Round trip of a few bytes that nobody computes with.", ["node"],
            registry=registry, keeps=keeps,
        )  # fmt: skip
