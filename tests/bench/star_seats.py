"""Where does each process of the star sit: on this machine or on a host of its own, and with which identity?

Covers: what the two sides of every contender need to find and to trust each other.
Does not cover: contenders (star_routes.py, star_sockets.py), processes (star.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.trust.identity import Identity
from shardnode.work.slice_at_work import ShardNode

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A host."""

    address: str = LOOPBACK
    network: str = ""
    """The path of its network (tests/support/network_hosts.py); empty: this machine's own."""


@dataclass(frozen=True, kw_only=True)
class NodeSeat:
    """What a node's process has to listen with."""

    name: str
    """As the mesh calls it; its certificate's name too."""
    address: str
    """Of its host."""
    run_directory: Path
    """For Unix sockets and keys; this node's own."""
    hidden_size: int
    identity: Identity
    open_node: Callable[[str], ShardNode]
    """Opens its slice for a listen address; it answers every block at once."""


@dataclass(frozen=True, kw_only=True)
class CoordinatorSeat:
    """What the coordinator's process has to connect with."""

    mesh_name: str
    node_names: tuple[str, ...]
    """In rank order."""
    run_directory: Path
    identity: Identity
