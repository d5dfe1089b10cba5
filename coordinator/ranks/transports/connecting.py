"""From addresses to sessions: channels, who holds which rank, the right transport for each node.

Covers: asking each node what it holds, ordering by rank, choosing between the direct socket, frames and gRPC.
Does not cover: starting nodes (local/pool.py), sessions themselves (framed.py, framed_tcp.py, grpc_stream.py).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from common.errors import InputError, NodeLost, SliceMismatch
from common.program.logs import entry
from common.wire.addresses import grpc_address, host_port, is_loopback, split_host_port
from common.wire.rpc import channel_options
from common.wording import counted
from coordinator.ranks.transports.arrivals import Arrivals
from coordinator.ranks.transports.carriers import AUTO, FRAMES, GRPC, Carrier
from coordinator.ranks.transports.echo_lane import EchoLane
from coordinator.ranks.transports.framed import DirectShardClient
from coordinator.ranks.transports.framed_tcp import FramedTcpClient, Link, connect_framed
from coordinator.ranks.transports.grpc_stream import GrpcShardClient, get_stats
from coordinator.ranks.transports.transport import ShardClient
from protos.shardmesh.v1 import shard_pb2

if TYPE_CHECKING:  # cryptography comes with it, which nodes of this machine have no use for
    from coordinator.membership.reach import MeshAccess

STATS_TIMEOUT_SECONDS = 4.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConnectedNode:
    """One node: its channel for stats and its session for rounds."""

    name: str
    """For a person."""
    label: str
    """As series call it: the member's name, or node0 and on by rank."""
    channel: grpc.Channel
    client: ShardClient
    echoes: EchoLane
    """Of the way that its rounds take."""

    def stats(self) -> shard_pb2.GetStatsResponse:
        """Ask the node for its state. Raises: NodeError."""
        return get_stats(self.channel, self.name, STATS_TIMEOUT_SECONDS)

    def close(self) -> None:
        self.client.close()
        self.channel.close()


def parse_node_list(text: str, *, insecure: bool) -> list[str]:
    """Return the addresses of `--nodes a:p,b:p`.

    Raises: InputError: not addresses, one twice, or one that needs TLS.
    """
    addresses = [address.strip() for address in text.split(",") if address.strip()]
    if not addresses:
        raise InputError("--nodes names no address; write --nodes host:port,host:port")
    if len(set(addresses)) != len(addresses):
        raise InputError("--nodes names an address twice")
    for address in addresses:
        if not address.startswith("unix:"):
            host, _ = split_host_port(address)
            if not insecure and not is_loopback(host):
                raise InputError(f"{address} is another device, which takes TLS: name a node of your mesh "
                                 "(coordinator-cli nodes lists them), or pass --insecure if you trust that network"
                                 )  # fmt: skip
    return addresses


def connect_nodes(
    addresses: Sequence[str], mesh: MeshAccess | None = None, reach_seconds: float | None = None, rounds: str = AUTO
) -> list[ConnectedNode]:
    """Connect to every address and return the nodes in rank order.

    Args: mesh: the mesh that they belong to, where they do; `addresses` are their names then; reach_seconds: how long
        each may take to answer, if not STATS_TIMEOUT_SECONDS; rounds: what carries them to other devices, of ROUNDS.
    Raises: NodeLost: not reachable; NoSuchNode; SliceMismatch: the ranks are not 0..N-1, each once.
    """
    channels: list[grpc.Channel] = []
    nodes: list[ConnectedNode] = []
    try:
        found: dict[int, tuple[str, grpc.Channel, shard_pb2.GetStatsResponse]] = {}
        reaching = Reaching(mesh, rounds)
        for address in addresses:
            if mesh is None:
                channel = grpc.insecure_channel(grpc_address(address), options=channel_options())
                who = f"the node at {address}"
            else:
                channel, who = mesh.channel(address), address
            channels.append(channel)
            stats = get_stats(channel, who, reach_seconds or STATS_TIMEOUT_SECONDS, _is_silent(mesh, address))
            if stats.rank in found:
                raise SliceMismatch(f"{address} and {found[stats.rank][0]} both hold rank {stats.rank}")
            found[stats.rank] = (address, channel, stats)
        if sorted(found) != list(range(len(addresses))):
            raise SliceMismatch(f"the ranks {', '.join(map(str, sorted(found)))} on {counted(len(addresses), 'node')}; "
                                f"needed is each of {', '.join(map(str, range(len(addresses))))}, once")  # fmt: skip
        for rank in range(len(addresses)):
            address, channel, stats = found[rank]
            name = _name(rank, address, mesh)
            client = reaching.session(address, channel, stats, name)
            nodes.append(ConnectedNode(
                name=name, label=f"node{rank}" if mesh is None else name, channel=channel, client=client,
                echoes=EchoLane(name, channel, reaching.beside(client, address, stats.rounds_port)),
            ))  # fmt: skip
        return nodes
    except BaseException:
        for node in nodes:
            node.client.close()
        for channel in channels:
            channel.close()
        raise


def _name(rank: int, address: str, mesh: MeshAccess | None) -> str:
    if mesh is not None:
        return address
    return f"node {rank}" if address.startswith("unix:") else f"node {rank} ({address})"


class Reaching:
    """Chooses what carries rounds to each node of one run."""

    def __init__(self, mesh: MeshAccess | None, rounds: str) -> None:
        """Args: rounds: of ROUNDS."""
        self._mesh, self._rounds = mesh, rounds
        self._arrivals = Arrivals()

    def session(
        self, address: str, channel: grpc.Channel, stats: shard_pb2.GetStatsResponse, name: str
    ) -> ShardClient:  # fmt: skip
        """Return a session: over the direct socket where both ends are on this host, else in frames, else over gRPC.

        Raises: NodeLost, NotTrusted: frames were asked for and cannot be had.
        """
        if address.startswith("unix:") and stats.direct_path and os.path.exists(stats.direct_path):
            return DirectShardClient(stats.direct_path, name)
        is_silent = _is_silent(self._mesh, address)
        if self._rounds == GRPC or address.startswith("unix:"):
            return GrpcShardClient(channel, name, is_silent=is_silent)
        try:
            return self._framed(address, stats.rounds_port, name, is_silent)
        except NodeLost as error:
            if self._rounds == FRAMES:
                raise
            log.warning("%s", entry("rounds over gRPC", node=name, error=error))
            carrier = Carrier(GRPC, is_fallback=True, port=stats.rounds_port)
            return GrpcShardClient(channel, name, is_silent=is_silent, carrier=carrier)

    def beside(self, client: ShardClient, address: str, port: int) -> Callable[[], FramedTcpClient] | None:
        """Return what makes another connection in frames, with nothing sent; None: the session is in none.

        Args: client: the session; port: for rounds, as the node told it. What is returned raises as `session`.
        """
        if client.carrier.name != FRAMES:
            return None
        is_silent, name = _is_silent(self._mesh, address), client.name
        where, secure = self._place(address, port)
        return lambda: connect_framed(where, name, Arrivals(), secure, is_silent)

    def without_session(self, name: str, port: int) -> Callable[[], FramedTcpClient] | None:
        """Return what makes a connection in frames to a node of the mesh; None: its rounds would go over gRPC.

        Args: port: for rounds, as the node told it; 0: none. What is returned raises as `session`.
        """
        if self._rounds == GRPC or (self._rounds == AUTO and not port):
            return None
        return lambda: self._framed(name, port, name, _is_silent(self._mesh, name))

    def _framed(self, address: str, port: int, name: str, is_silent: Callable[[], bool]) -> FramedTcpClient:
        if not port:
            raise NodeLost(f"{name} takes no rounds in frames; give its shardnode a --rounds-port that is free, or a "
                           "newer version")  # fmt: skip
        where, secure = self._place(address, port)
        return connect_framed(where, name, self._arrivals, secure, is_silent)

    def _place(self, address: str, port: int) -> tuple[str, Callable[[socket.socket], Link] | None]:
        """Return where a node takes frames, and what shakes hands there."""
        if self._mesh is None:
            host, secure = split_host_port(address)[0], None
        else:
            host = split_host_port(self._mesh.node(address).address)[0]
            secure = self._mesh.secured(address)
        return host_port(host, port), secure


def _is_silent(mesh: MeshAccess | None, name: str) -> Callable[[], bool]:
    """Return what tells whether a node is heard no more; outside of a mesh nobody can."""
    return lambda: mesh is not None and mesh.is_silent(name)
