"""Reaching the nodes of a mesh by their names: addresses from the coordinator, mutual TLS with its identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from common.errors import NodeLost, NoSuchNode
from common.trust.certificates import NODE, PeerName
from common.trust.identity import Identity
from common.trust.tls import secure_channel
from coordinator.mesh_state import open_mesh_state
from coordinator.owner_client import OwnerClient


@dataclass(frozen=True, kw_only=True)
class MeshAccess:
    """Some nodes of a mesh, by address."""

    identity: Identity
    peers: dict[str, PeerName]
    """By address: who must answer there."""

    def channel(self, address: str) -> grpc.Channel:
        """Return a channel to the node that is known to be at `address`; another one that answers there is refused."""
        return secure_channel(address, self.identity, self.peers[address])


def find_nodes(names: Sequence[str], state_directory: Path) -> tuple[list[str], MeshAccess]:
    """Return where the nodes of these names are, and how to reach them.

    Raises: InputError: there is no mesh here; NoSuchNode; NodeLost: a node is not heard, or the coordinator is not.
    """
    state = open_mesh_state(state_directory)
    with OwnerClient(state_directory) as coordinator:
        known = {node.name: node for node in coordinator.nodes().nodes}
    addresses = []
    peers = {}
    for name in names:
        node = known.get(name)
        if node is None:
            raise NoSuchNode(
                f"--nodes names {name}, and mesh {state.name} has: {', '.join(sorted(known)) or 'no nodes'}"
            )
        if not node.address or node.silent_seconds < 0:
            raise NodeLost(f"{name} was not heard since the coordinator started; is its shardnode running?")
        addresses.append(node.address)
        peers[node.address] = PeerName(mesh=state.name, role=NODE, name=name)
    return addresses, MeshAccess(identity=state.identity(), peers=peers)
