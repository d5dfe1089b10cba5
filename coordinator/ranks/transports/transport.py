"""The seam between the engine and one rank: session messages out, responses back, in order.

Covers: the contract that every transport keeps (one conformance suite runs over all of them).
Does not cover: tensors (ranks/ranks.py), the transports themselves (grpc_stream.py, framed.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from common.errors import NodeFault
from common.wire.packed_round import BlockDone
from coordinator.ranks.transports.carriers import Carrier
from coordinator.ranks.transports.exchange import Exchanged
from protos.shardmesh.v1 import shard_pb2

SILENCE_SECONDS = 4.0
"""How long a node may give no sign of life before it counts as lost; below the 5 s that we promise."""
ROUND_LIMIT_SECONDS = 120.0
"""How long one round may take even while the node says that it is working, before such rounds were measured."""


class Arrived(NamedTuple):
    """A response, and what is known of its coming."""

    response: shard_pb2.RoundsResponse | BlockDone
    at: float
    """When it was here (time.perf_counter), which may be long before anybody looked."""
    byte_count: int
    message: bytes = b""
    """Of a packed answer: all of it, its tensor included."""


class ShardClient(Protocol):
    """One session with one shard node. Not safe for several threads, but for `interrupt`."""

    name: str
    """The node as a person knows it: rank and address."""

    round_limit_seconds: float
    """How long the round under way may take; the ranks set it."""

    passes_files: bool
    """Whether descriptors can go with a message: the node is on this host and the transport is a Unix socket."""

    carrier: Carrier
    """What it goes over."""

    takes_packed: bool
    """Whether messages may be packed rounds (common/wire/packed_round.py), where the node understands them."""

    @property
    def together(self) -> Exchanged | None:
        """The session, where it can be asked together with others (exchange.py)."""

    def submit(self, message: bytes, files: Sequence[int] = ()) -> None:
        """Send one request, a serialized RoundsRequest or a packed round, without waiting for its response.

        Args: files: descriptors that the node gets too; none unless `passes_files`.
        Raises: NodeError: the node is gone.
        """

    def collect(self) -> Arrived:
        """Return the response to the oldest request that has none yet.

        Raises: NodeLost, NodeTimeout: no answer within SILENCE_SECONDS of the last sign of life, or
        round_limit_seconds in all; any other ShardmeshError: what the node answered instead. The session is over then.
        """

    def interrupt(self) -> None:
        """Have whoever waits for a response get NodeLost at once. From any thread."""

    def close(self) -> None:
        """End the session. May be called twice, and after a failure."""


def answer_to(client: ShardClient, call_id: int, expected: str) -> Arrived:
    """Return a node's answer to a call; those to earlier calls that nobody has waited for come before it.

    Args: expected: the body that belongs there.
    Raises: as ShardClient.collect; NodeFault: it answers something else.
    """
    limit = time.monotonic() + client.round_limit_seconds
    while True:
        arrived = client.collect()
        response = arrived.response
        body = "block_result" if isinstance(response, BlockDone) else response.WhichOneof("body")
        if body == expected and response.call_id == call_id:
            return arrived
        if body != "sequences_changed" or response.call_id >= call_id or time.monotonic() > limit:
            if body != expected:
                raise NodeFault(f"{client.name} answered {body} where {expected} belongs")
            raise NodeFault(f"{client.name} answered call {response.call_id} instead of {call_id}")


def whole_response(answer: Arrived) -> shard_pb2.RoundsResponse:
    """Return an answer that is not packed."""
    assert not isinstance(answer.response, BlockDone)
    return answer.response
