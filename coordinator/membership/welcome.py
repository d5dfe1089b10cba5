"""Whom does the coordinator let in at the port of members, and how often at once?

Covers: what its gate asks. Does not cover: the gate (common/trust/gate.py), what who is in may do (services.py,
program/daemon.py).
"""

from __future__ import annotations

import grpc

from common.machine.descriptors import places
from common.program.places import Caller, Places, network_of
from common.trust.behind_gate import caller_of, shown_by
from common.trust.call_pace import CallPace
from common.trust.certificates import COORDINATOR, NODE, PeerName
from common.trust.member_door import Judge
from coordinator.membership.members import MAX_MEMBERS, not_a_member
from coordinator.membership.state import MeshState

HANDSHAKE_SECONDS = 5.0
OF_A_NODE, OF_THE_OWNER = 2, 64
"""A node has one connection, and for a moment a second one when its certificate is renewed; the owner one a command."""
WAITING = 256
MOST_CONNECTED = {NODE: OF_A_NODE, COORDINATOR: OF_THE_OWNER}
CALLS = {NODE: 4, COORDINATOR: 48}
"""At once: a node has a heartbeat and a renewal, and what a connection that broke has left for a moment."""
CALLS_OF_A_NETWORK, JOINING = 8, 64
JOINING_SECONDS = 20.0
"""For a device that joins, from its first byte to its certificate: a small coordinator signs one at a time."""


def member_places() -> Places:
    """Return how many connections the port of members takes: a share of the files that this process may open."""
    most = places(OF_A_NODE * MAX_MEMBERS + OF_THE_OWNER + WAITING, 0.7)
    return Places(
        connections=most, waiting=min(WAITING, most // 2), threads=most + WAITING, seconds=HANDSHAKE_SECONDS,
        in_vain_seconds=0.5, in_vain_a_second=0.05,
    )  # fmt: skip


def joining_places() -> Places:
    """Return how many connections the port takes where devices join."""
    most = places(JOINING, 0.1)
    return Places(
        connections=most, threads=2 * most, seconds=JOINING_SECONDS, at_once=32, a_second=4.0, in_vain_seconds=0.5,
        in_vain_a_second=0.03, set_aside_seconds=0.012,
    )  # fmt: skip


def pace_of_members(owner: PeerName) -> CallPace:
    """Return how fast a node may call: it has a heartbeat a second. The owner may as he likes."""
    return CallPace(at_once=32, a_second=4.0, free=owner.uri)


def pace_of_strangers() -> CallPace:
    """Return how fast those of a network may call that have no certificate yet: a device has a handful to join."""
    return CallPace(at_once=64, a_second=8.0)


def calls_of_members(context: grpc.ServicerContext) -> tuple[str, int]:
    """Return under whose name a call of a member is counted, and how many there may be at once."""
    caller = caller_of(context)
    return caller.uri, CALLS[caller.role]


def calls_of_strangers(context: grpc.ServicerContext) -> tuple[str, int]:
    """Return the same of who has no certificate yet: his network."""
    shown = shown_by(context)
    return ("", 1) if shown is None else (network_of(shown.host), CALLS_OF_A_NETWORK)


def members_only(state: MeshState) -> Judge:
    """Return what lets nodes in that show a certificate which is still theirs, and the owner."""

    def judge(peer: PeerName, caller: Caller) -> str:
        if peer == state.peer:
            return ""
        if (peer.mesh, peer.role) != (state.name, NODE):
            return f"{peer.uri} is not a node of this mesh"
        return "" if state.members.knows(peer.name, caller.serial, caller.certified_at) else not_a_member(peer.name)

    return judge
