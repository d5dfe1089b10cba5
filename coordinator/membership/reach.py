"""Reaching the nodes of a mesh by their names: where each one is now, mutual TLS with the coordinator's identity.

Covers: names to channels, who is missing. Does not cover: the list of nodes itself (members.py; owner_client.py asks a
running coordinator for it).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from common.errors import InputError, NodeLost, NoSuchNode, ShardmeshError
from common.trust.certificates import NODE, PeerName
from common.trust.identity import Identity
from common.trust.rounds_tls import Handshakes, RoundsConnection, client_handshakes
from common.trust.tls import secure_channel
from common.wire.reaching import answer_of, wait_until_reached
from common.wire.rpc import failures_of
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import open_mesh_state
from protos.shardmesh.v1 import mesh_pb2

SILENT_AFTER_SECONDS = 3.5
"""Without a heartbeat for so long a node counts as gone: three have not come, and who waits hears it within 5 s."""
REACH_SECONDS = 4.0
"""How long a node may take to be reached, though it is heard."""
SLOW_LINK_PING_SECONDS = 30.0
"""Heartbeats find a frozen node sooner, and come over a connection of their own, past what fills a slow link."""


@dataclass(frozen=True, kw_only=True)
class MeshAccess:
    """The nodes of one mesh, by name."""

    mesh_name: str
    identity: Callable[[], Identity]
    nodes: Callable[[], Sequence[mesh_pb2.Node]]
    """Asked each time, since a node may have got another address."""

    def node(self, name: str) -> mesh_pb2.Node:
        """Return what the mesh knows of a node. Raises: NoSuchNode; NodeLost: it was never heard."""
        known = {node.name: node for node in self.nodes()}
        node = known.get(name)
        if node is None:
            raise NoSuchNode(f"there is no node called '{name[:60]}' in mesh {self.mesh_name}; there are: "
                             f"{', '.join(sorted(known)) or 'none'}")  # fmt: skip
        if not node.address or node.silent_seconds < 0:
            raise NodeLost(f"{name} was not heard since the coordinator started; is its shardnode running?")
        return node

    def alive(self) -> list[mesh_pb2.Node]:
        """Return the nodes that were heard lately, by name. Raises: NodeLost: there are none."""
        alive = [node for node in self.nodes() if is_alive(node)]
        if not alive:
            raise NodeLost(f"no node of mesh {self.mesh_name} is alive; start shardnode on a device, or let one in: "
                           "coordinator-cli mesh invite")  # fmt: skip
        return alive

    def channel(self, name: str) -> grpc.Channel:
        """Return a channel to a node; another one that answers there is refused. Raises: NoSuchNode, NodeLost."""
        peer = PeerName(mesh=self.mesh_name, role=NODE, name=name)
        address = self.node(name).address
        try:
            return secure_channel(address, self.identity(), peer, ping_timeout_seconds=SLOW_LINK_PING_SECONDS)
        except InputError as error:  # it was heard over a link that has gone since
            raise NodeLost(f"{name} is not reachable: {error}") from error

    def secured(self, name: str) -> Callable[[socket.socket], RoundsConnection]:
        """Return what shakes hands with a node over a connection; another one that answers there is refused."""
        peer = PeerName(mesh=self.mesh_name, role=NODE, name=name)
        made: list[tuple[Identity, Handshakes]] = []  # making it takes as long as shaking hands

        def shake_hands(plain: socket.socket) -> RoundsConnection:
            identity = self.identity()
            if not made or made[0][0] != identity:
                made[:] = [(identity, client_handshakes(identity))]
            connection = made[0][1].wrap(plain, peer.dns)
            connection.do_handshake()
            return connection

        return shake_hands

    def reach(self, name: str) -> grpc.Channel:
        """Return a channel to a node that answers there. Raises: NoSuchNode; NodeLost: it does not, or falls silent."""
        channel = self.channel(name)
        complaint = f"{name} is not reachable; is its shardnode running?"
        try:
            wait_until_reached(channel, REACH_SECONDS, complaint, lambda: self.is_silent(name))
        except BaseException:
            channel.close()
            raise
        return channel

    def ask(
        self, name: str, method: Callable[[grpc.Channel], Any], request: object, limit_seconds: float
    ) -> Any:  # fmt: skip
        """Return what a node answers; one that falls silent meanwhile is not waited for.

        Args: method: the stub's method to call, on the channel that it is given.
        Raises: NoSuchNode; NodeLost: no answer; what the node answers instead. All name the node.
        """
        with closing(self.reach(name)) as channel, failures_of(name):
            call = method(channel).future(request, timeout=limit_seconds + 1)
            complaint = f"{name} does not answer; is its shardnode running?"
            return answer_of(call, limit_seconds, complaint, lambda: self.is_silent(name))

    def is_silent(self, name: str) -> bool:
        """Tell whether a node that was heard is heard no more; False while nobody can tell."""
        try:
            return self.node(name).silent_seconds > SILENT_AFTER_SECONDS
        except ShardmeshError:
            return False


def is_alive(node: mesh_pb2.Node) -> bool:
    """Tell whether a node was heard lately."""
    return bool(node.address) and 0 <= node.silent_seconds <= SILENT_AFTER_SECONDS


def owner_access(state_directory: Path) -> MeshAccess:
    """Return the nodes as the running coordinator of a state directory knows them.

    Raises: InputError: there is no mesh there. Asking for nodes raises NodeLost when the coordinator does not answer.
    """
    state = open_mesh_state(state_directory)

    def nodes() -> Sequence[mesh_pb2.Node]:
        with OwnerClient(state_directory) as coordinator:
            return coordinator.nodes().nodes

    return MeshAccess(mesh_name=state.name, identity=state.identity, nodes=nodes)
