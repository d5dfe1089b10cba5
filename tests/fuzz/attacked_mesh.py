"""A mesh in this process whose every call is tried: channels of whoever may call, over the ports that they have.

    mesh = AttackedMesh(directory)
    mesh.channel(OWNER)

Covers: a coordinator with a node that serves a model and one that keeps slices, a coordinator without nodes whose owner
does what would take a mesh apart; what any of them logs as its own mistake. Does not cover: what is sent (calls.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import grpc

from common.errors import TokenRefused
from common.trust.certificates import COORDINATOR, NODE, PeerName
from common.trust.identity import load_identity
from common.trust.signing import make_key
from common.trust.tls import channel_to_authority, secure_channel
from common.wire.addresses import host_port, split_host_port
from common.wire.rpc import channel_options
from coordinator.membership import services
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import SOCKET_FILE, init_mesh
from coordinator.program.daemon import Coordinator
from shardnode.config import NodeConfig
from shardnode.listeners.frames import FramesServer
from shardnode.membership.join import IDENTITY_DIRECTORY
from shardnode.run import RunningNode
from shardnode.sessions.live_sessions import LiveSessions
from shardnode.sessions.session_series import SessionSeries
from tests.support.free_ports import free_port_pair
from tests.support.loaded_here import load_here
from tests.support.mesh_members import aged_identity, joined
from tests.support.random_models import build, save
from tests.support.waiting import wait_until

MODEL, SERVING, KEEPING, GUEST = "small", "kitchen", "attic", "guest"
MEMBER, STRANGER, OWNER, LONE_OWNER, TO_SERVING, TO_KEEPING = (
    "a member", "a stranger with a token", "the owner", "an owner without nodes", "the coordinator, of who serves",
    "the coordinator, of who keeps slices",
)  # fmt: skip
ENDED_KEY = make_key()
"""Of the member whose certificate has ended."""
LIMIT_SECONDS = 30.0


class WrongEnd(Exception):
    """A call or a connection ended as none may."""


class Mistakes(logging.Handler):
    """What was logged with a traceback: no peer may bring that about."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._found: list[str] = []
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        if record.exc_info and (error := record.exc_info[1]) is not None:
            at = error.__traceback__
            while at is not None and at.tb_next is not None:
                at = at.tb_next
            where = "" if at is None else f" at {Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}"
            self._found.append(f"{record.getMessage()[:60]}: {type(error).__name__}: {str(error)[:100]}{where}")

    def take(self) -> list[str]:
        """Return what was logged since the last time."""
        found, self._found = self._found, []
        return found

    def check(self) -> None:
        """Raise WrongEnd if anything was logged since the last `take`."""
        if found := self.take():
            raise WrongEnd(f"logged: {'; '.join(found)}")


class AttackedMesh:
    """Two coordinators, two nodes, and channels to them. It ends with the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.mistakes = Mistakes()
        self.state, self._lone_state = directory / "mesh", directory / "lone"
        # Each input that asks for a certificate is to be looked at.
        with mock.patch.object(services, "RENEWALS_AT_ONCE", 1 << 40):
            self.coordinator = self._coordinator(self.state)
        self.lone = self._coordinator(self._lone_state)
        self.guest = joined(self.state, GUEST, directory / GUEST)
        joined(self.state, "garage", directory / "garage")
        self.ended = aged_identity(self.coordinator, directory / "garage" / IDENTITY_DIRECTORY, ENDED_KEY, days=100)
        self.serving, self.keeping = self._node(SERVING), self._node(KEEPING)
        wait_until(self._are_heard, limit_seconds=LIMIT_SECONDS, what="heartbeats of both nodes")
        load_here(self.state, save(build(layers=2, vocab_size=260), directory / "model"), [SERVING], MODEL)
        frames = FramesServer("127.0.0.1", 0, self.serving._serving, LiveSessions(), SessionSeries(), door=None)
        self.frames_port = frames.port
        self._secret = b""
        self.secret()
        self._channels = dict(self._made())

    def channel(self, who: str) -> grpc.Channel:
        """Return the way somebody calls."""
        return self._channels[who]

    def secret(self) -> bytes:
        """Return that of a token which lets somebody in."""
        try:
            self.coordinator._state.members.check_token(self._secret)
        except TokenRefused:
            self._secret = self.coordinator._invites.make(86400)
            self.coordinator._invited()
        return self._secret

    def _coordinator(self, state: Path) -> Coordinator:
        init_mesh(state, "home")
        return Coordinator(state, host_port("127.0.0.1", free_port_pair()))

    def _node(self, name: str) -> RunningNode:
        data = self._directory / name
        joined(self.state, name, data)
        return RunningNode(NodeConfig(
            slice_directory=None, listen="127.0.0.1:0", coordinator=self.coordinator.address, data_directory=data,
            rounds_port=0, thread_count=1, kv_budget_bytes=1 << 20,
        ))  # fmt: skip

    def _are_heard(self) -> bool:
        with OwnerClient(self.state) as owner:
            return {node.name for node in owner.nodes().nodes if node.address} >= {SERVING, KEEPING}

    def _made(self) -> Iterator[tuple[str, grpc.Channel]]:
        desk, own = PeerName(mesh="home", role=COORDINATOR, name="home"), load_identity(self.state)
        host, port = split_host_port(self.coordinator.address)
        yield MEMBER, secure_channel(self.coordinator.address, self.guest, desk, ping_timeout_seconds=LIMIT_SECONDS)
        yield STRANGER, channel_to_authority(host_port(host, port + 1), own.authority, desk)
        for who, state in ((OWNER, self.state), (LONE_OWNER, self._lone_state)):
            yield who, grpc.insecure_channel(f"unix:{state / SOCKET_FILE}", options=channel_options(LIMIT_SECONDS))
        for who, node, name in ((TO_SERVING, self.serving, SERVING), (TO_KEEPING, self.keeping, KEEPING)):
            peer = PeerName(mesh="home", role=NODE, name=name)
            yield who, secure_channel(node.address, own, peer, ping_timeout_seconds=LIMIT_SECONDS)
