"""All series of what answers: requests, sweeps, rounds, and the memory of this process.

    series = AnswerSeries(make_registry("coordinator"))

Covers: one place to make them, so that each name is there once in a process, before the first request too.
Does not cover: what each of them is (request_series.py, and in engine/ and ranks/), members and loads (program/).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from common.program.process_series import MemorySeries
from common.program.weight_series import WeightSeries
from coordinator.answering.request_series import RequestSeries
from coordinator.engine.sweep_series import SweepSeries
from coordinator.ranks.round_series import RoundSeries

PREFIX = "shardmesh_coordinator"


class AnswerSeries:
    """Series of one process that answers. It outlives every open model."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Args: registry: the process's; one of its own where nobody looks."""
        self.registry = registry or CollectorRegistry()
        self.requests = RequestSeries(self.registry)
        self.sweeps = SweepSeries(self.registry)
        self.rounds = RoundSeries(self.registry)
        self.weights = WeightSeries(PREFIX, self.registry)
        self.memory = MemorySeries(PREFIX, self.registry)
