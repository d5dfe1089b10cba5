"""Where the time of rounds goes: counted by the mesh, read by benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

from protos.shardmesh.v1 import shard_pb2


@dataclass(kw_only=True)
class RoundTimes:
    """Where the time of rounds has gone so far, seconds; a bench reads the differences."""

    round_count: int = 0
    total: float = 0.0
    """From the first byte sent to the sum."""
    tile_wait: float = 0.0
    """Of the slowest rank in each round: waiting for weights."""
    kernel: float = 0.0
    """Of the slowest rank in each round: computing."""
    reduction: float = 0.0
    """Decoding and adding the parts."""

    def add(
        self, slowest: shard_pb2.BlockResult | shard_pb2.LayersResult, *, seconds: float, reduction_seconds: float
    ) -> None:
        """Count one round. Args: slowest: what the rank answered that took longest."""
        self.round_count += 1
        self.total += seconds
        self.tile_wait += slowest.tile_wait_nanoseconds / 1e9
        self.kernel += slowest.compute_nanoseconds / 1e9
        self.reduction += reduction_seconds

    @property
    def wire(self) -> float:
        """What is left: encoding, sending, waiting for messages, being scheduled."""
        return max(0.0, self.total - self.tile_wait - self.kernel - self.reduction)
