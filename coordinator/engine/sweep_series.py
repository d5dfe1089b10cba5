"""The series of sweeps: how long one takes, how long its end, how many sequences share it.

Covers: their names. Does not cover: who moves them (engine.py, and answering/answers.py when the ranks are gone).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from common.program.tallies import GaugeTallies, HistogramTallies

SWEEP_SECONDS = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
HEAD_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
PREFIX = "shardmesh_coordinator"


class SweepSeries:
    """Of one engine after another; the engine's thread moves them."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Args: registry: the process's; one of its own where nobody looks."""
        r = registry or CollectorRegistry()
        self.head_seconds = HistogramTallies(
            f"{PREFIX}_head_seconds", "Final norm, head and sampling of a sweep.", bounds=HEAD_SECONDS, registry=r
        ).of()
        self.sweep_seconds = HistogramTallies(
            f"{PREFIX}_sweep_seconds", "One sweep over all blocks.", bounds=SWEEP_SECONDS, registry=r
        ).of()
        self.sequences = GaugeTallies(f"{PREFIX}_sequences", "Sequences in the batch.", registry=r).of()
