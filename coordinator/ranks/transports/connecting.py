"""From addresses to sessions: channels, who holds which rank, the right transport for each node.

Covers: asking each node what it holds, ordering by rank, choosing between the direct socket and gRPC.
Does not cover: starting nodes (local/pool.py), sessions themselves (framed.py, grpc_stream.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from common.errors import InputError, SliceMismatch
from common.wire.rpc import channel_options, is_loopback, split_host_port
from common.wording import counted
from coordinator.ranks.transports.framed import DirectShardClient
from coordinator.ranks.transports.grpc_stream import GrpcShardClient, get_stats
from coordinator.ranks.transports.transport import ShardClient
from protos.shardmesh.v1 import shard_pb2

if TYPE_CHECKING:  # cryptography comes with it, which nodes of this machine have no use for
    from coordinator.membership.reach import MeshAccess

STATS_TIMEOUT_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class ConnectedNode:
    """One node: its channel for stats and its session for rounds."""

    name: str
    """For a person."""
    label: str
    """As series call it: the member's name, or node0 and on by rank."""
    channel: grpc.Channel
    client: ShardClient

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
    addresses: Sequence[str], mesh: MeshAccess | None = None, reach_seconds: float | None = None
) -> list[ConnectedNode]:
    """Connect to every address and return the nodes in rank order.

    Args: mesh: the mesh that they belong to, where they do; `addresses` are their names then; reach_seconds: how long
        each may take to answer, if not STATS_TIMEOUT_SECONDS.
    Raises: NodeLost: not reachable; NoSuchNode; SliceMismatch: the ranks are not 0..N-1, each once.
    """
    channels: list[grpc.Channel] = []
    nodes: list[ConnectedNode] = []
    try:
        found: dict[int, tuple[str, grpc.Channel, str]] = {}
        for address in addresses:
            if mesh is None:
                channel, who = grpc.insecure_channel(address, options=channel_options()), f"the node at {address}"
            else:
                channel, who = mesh.channel(address), address
            channels.append(channel)
            stats = get_stats(channel, who, reach_seconds or STATS_TIMEOUT_SECONDS, _is_silent(mesh, address))
            if stats.rank in found:
                raise SliceMismatch(f"{address} and {found[stats.rank][0]} both hold rank {stats.rank}")
            found[stats.rank] = (address, channel, stats.direct_path)
        if sorted(found) != list(range(len(addresses))):
            raise SliceMismatch(f"the ranks {', '.join(map(str, sorted(found)))} on {counted(len(addresses), 'node')}; "
                                f"needed is each of {', '.join(map(str, range(len(addresses))))}, once")  # fmt: skip
        for rank in range(len(addresses)):
            address, channel, direct_path = found[rank]
            name = _name(rank, address, mesh)
            nodes.append(ConnectedNode(
                name=name, label=f"node{rank}" if mesh is None else name, channel=channel,
                client=_session(address, channel, direct_path, name, mesh),
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


def _session(address: str, channel: grpc.Channel, direct_path: str, name: str, mesh: MeshAccess | None) -> ShardClient:
    """Return a session over the direct socket where both ends are on this host, else over gRPC."""
    if address.startswith("unix:") and direct_path and os.path.exists(direct_path):
        return DirectShardClient(direct_path, name)
    return GrpcShardClient(channel, name, is_silent=_is_silent(mesh, address))


def _is_silent(mesh: MeshAccess | None, name: str) -> Callable[[], bool]:
    """Return what tells whether a node is heard no more; outside of a mesh nobody can."""
    return lambda: mesh is not None and mesh.is_silent(name)
