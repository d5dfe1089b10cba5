"""The seam between the engine and one rank: session messages out, responses back, in order.

Covers: the contract that every transport keeps (one conformance suite runs over all of them).
Does not cover: tensors (ranks/ranks.py), the transports themselves (grpc_stream.py, framed.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from protos.shardmesh.v1 import shard_pb2

SILENCE_SECONDS = 4.0
"""How long a node may give no sign of life before it counts as lost; below the 5 s that we promise."""
ROUND_LIMIT_SECONDS = 120.0
"""How long one round may take even while the node says that it is working, before such rounds were measured."""


class ShardClient(Protocol):
    """One session with one shard node. Not safe for several threads."""

    name: str
    """The node as a person knows it: rank and address."""

    round_limit_seconds: float
    """How long the round under way may take; the mesh sets it."""

    passes_files: bool
    """Whether descriptors can go with a message: the node is on this host and the transport is a Unix socket."""

    def submit(self, message: bytes, files: Sequence[int] = ()) -> None:
        """Send one serialized RoundsRequest without waiting for its response.

        Args: files: descriptors that the node gets too; none unless `passes_files`.
        Raises: NodeError: the node is gone.
        """

    def collect(self) -> shard_pb2.RoundsResponse:
        """Return the response to the oldest request that has none yet.

        Raises: NodeLost, NodeTimeout: no answer within SILENCE_SECONDS of the last sign of life, or
        round_limit_seconds in all; any other ShardmeshError: what the node answered instead. The session is over then.
        """

    def close(self) -> None:
        """End the session. May be called twice, and after a failure."""
