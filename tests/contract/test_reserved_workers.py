"""Is a node heard, and the owner answered, while members hold every worker that they may?

Covers: the port of members of a real coordinator, its gate included, in this process. Does not cover: crowds of
strangers (tests/attacks), limits themselves (tests/unit/test_call_limits.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest

from common.trust.certificates import COORDINATOR, NODE, PeerName, serial_of
from common.trust.identity import Identity
from common.trust.tls import secure_channel
from common.wire.call_limits import CallLimits
from coordinator.membership.book import Device, Issued
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import init_mesh
from coordinator.membership.welcome import CALLS
from coordinator.program import daemon
from coordinator.program.daemon import Coordinator
from tests.support.mesh_members import beat, forged
from tests.support.waiting import wait_until

LIMIT_SECONDS = 60.0
HOSTILE = 33
"""Members; with what each may have at once, more calls than the 128 workers that there were for all."""
METHOD = "/shardmesh.v1.MeshService/Heartbeat"


@pytest.fixture
def coordinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coordinator]:
    """Return one that waits long for a call's message, so that the machine's speed means nothing."""
    monkeypatch.setattr(daemon, "CallLimits", partial(CallLimits, arrive_seconds=LIMIT_SECONDS))
    init_mesh(tmp_path / "state", "home")
    made = Coordinator(tmp_path / "state", "127.0.0.1:0")
    yield made
    made.close()


def member(coordinator: Coordinator, name: str) -> Identity:
    """Let a node in without asking it, and return its identity."""
    state = coordinator._state
    identity = forged(state.authority, PeerName(mesh="home", role=NODE, name=name), state.authority.certificate)
    serial = serial_of(identity.own.certificate)
    issued = Issued(certificate=identity.own.certificate, serial=serial, ends=1 << 40)
    state.members.admit(name, state.invites.make(60), name, Device(), lambda: issued)
    return identity


def workers() -> int:
    """Return how many calls are worked on."""
    return sum(thread.name.startswith("rpc-") for thread in threading.enumerate())


def test_a_heartbeat_is_heard_while_members_hold_all_the_workers_that_they_may(
    coordinator: Coordinator, tmp_path: Path
) -> None:  # fmt: skip
    """Each has as many workers as it may have calls, so none waits for another's."""
    over, peer = threading.Event(), PeerName(mesh="home", role=COORDINATOR, name="home")

    def never() -> Iterator[bytes]:
        over.wait(LIMIT_SECONDS)
        yield from ()

    honest = member(coordinator, "kitchen")
    with ExitStack() as closing:
        closing.callback(over.set)
        for number in range(HOSTILE):
            identity = member(coordinator, f"hostile-{number}")
            channel = closing.enter_context(secure_channel(coordinator.address, identity, peer))
            for _ in range(CALLS[NODE]):
                stalled: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(METHOD)
                closing.callback(stalled.future(never()).cancel)
        wait_until(lambda: workers() >= 128, limit_seconds=LIMIT_SECONDS, what="calls that hold 128 workers")
        assert beat(coordinator, honest) is None
        with OwnerClient(tmp_path / "state") as owner:
            assert len(owner.nodes().nodes) == HOSTILE + 1
