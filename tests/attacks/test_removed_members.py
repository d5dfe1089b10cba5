"""Is who was removed refused by all, soon and also after restarts, and nobody else?

Covers: a coordinator and nodes in this process; open and new connections of a removed node, at the coordinator and at a
node, with the coordinator away too; a coordinator's certificate of before a renewal; forged and earlier lists.
Does not cover: crowds (test_crowds.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from common.errors import NodeLost, NotTrusted, ShardmeshError
from common.program.places import Caller
from common.trust.certificates import COORDINATOR, NODE, PeerName
from common.trust.identity import Identity, load_identity, save_identity
from common.trust.member_list import MemberList, believed
from common.trust.signing import make_authority, signature
from common.trust.tls import secure_channel
from common.wire.rpc import error_from_rpc
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc, slices_pb2, slices_pb2_grpc
from shardnode.config import NodeConfig
from shardnode.membership.join import IDENTITY_DIRECTORY
from shardnode.membership.known_members import KnownMembers
from shardnode.run import RunningNode
from tests.support.free_ports import free_place
from tests.support.mesh_members import DEVICE, LIMIT_SECONDS, beat, joined, state_of
from tests.support.waiting import wait_until

REFUSED_SECONDS = 2.0


class Home:
    """A coordinator, a node that works, and a laptop that will be removed."""

    def __init__(self, directory: Path) -> None:
        self.state, self.data = directory / "state", directory / "kitchen"
        init_mesh(self.state, "home")
        self.place = free_place()
        self.coordinator = Coordinator(self.state, self.place)
        joined(self.state, "kitchen", self.data)
        self.laptop = joined(self.state, "laptop", directory / "laptop")
        self.node = self.started()

    def started(self) -> RunningNode:
        """Start the node."""
        return RunningNode(NodeConfig(
            slice_directory=None, listen="127.0.0.1:0", thread_count=1, kv_budget_bytes=1 << 24,
            coordinator=self.coordinator.address, data_directory=self.data,
        ))  # fmt: skip

    def known(self) -> KnownMembers:
        """Return what the node has kept."""
        return KnownMembers(self.data / IDENTITY_DIRECTORY, lambda: self.laptop.authority)

    def ask_node(self, identity: Identity) -> ShardmeshError | None:
        """Ask the node something that its coordinator may, and return why it was refused."""
        with secure_channel(self.node.address, identity, PeerName(mesh="home", role=NODE, name="kitchen")) as channel:
            try:
                slices_pb2_grpc.SliceServiceStub(channel).ListSlices(
                    slices_pb2.ListSlicesRequest(), timeout=LIMIT_SECONDS
                )
            except grpc.RpcError as error:
                return error_from_rpc(error, "kitchen")
        return None

    def close(self) -> None:
        """End both."""
        self.node.close()
        self.coordinator.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a mesh."""
    made = Home(tmp_path)
    yield made
    made.close()


def test_a_removed_node_is_cut_off_and_refused_by_all_and_after_restarts(home: Home) -> None:
    """Its open connection ends, it reads that it was removed, and no node lets it in, whoever is away."""
    peer = PeerName(mesh="home", role=COORDINATOR, name="home")
    with secure_channel(home.coordinator.address, home.laptop, peer) as channel:
        stub = mesh_pb2_grpc.MeshServiceStub(channel)
        request = mesh_pb2.HeartbeatRequest(device=DEVICE, listen="127.0.0.1:5")
        stub.Heartbeat(request, timeout=LIMIT_SECONDS)
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        with OwnerClient(home.state) as owner:
            owner.remove("laptop")
        began = time.monotonic()
        wait_until(lambda: states[-1:] not in ([], [grpc.ChannelConnectivity.READY]), limit_seconds=REFUSED_SECONDS,
                   what="the open connection's end")  # fmt: skip
        with pytest.raises(grpc.RpcError, match="was removed"):
            stub.Heartbeat(request, timeout=LIMIT_SECONDS)
        assert time.monotonic() - began < REFUSED_SECONDS
    assert isinstance(home.ask_node(home.laptop), NotTrusted)
    serial = state_of(home.state).members.get("kitchen").serials
    wait_until(lambda: home.known()._list is not None and home.known()._list.members == frozenset(serial),
               limit_seconds=LIMIT_SECONDS, what="a list without the laptop")  # fmt: skip
    home.coordinator.close()
    home.node.close()
    home.node = home.started()
    assert isinstance(home.ask_node(home.laptop), NotTrusted)
    home.coordinator = Coordinator(home.state, home.place)
    assert isinstance(beat(home.coordinator, home.laptop), NotTrusted)


def test_a_coordinator_that_has_renewed_is_let_in_and_its_certificate_of_before_is_not(home: Home) -> None:
    """By a node that was off meanwhile and hears no coordinator, and by one that hears it."""
    wait_until(lambda: home.known().number, limit_seconds=LIMIT_SECONDS, what="a list")
    before = load_identity(home.state)
    known = home.known()._list
    assert known is not None
    wait_until(lambda: time.time() >= known.made_at + 1, limit_seconds=LIMIT_SECONDS, what="a second after the list's")
    home.coordinator.close()
    home.node.close()
    state = state_of(home.state)
    renewed = replace(before, own=state.certifying.own(state.authority, state.peer))
    save_identity(home.state, renewed)
    home.node = home.started()
    assert home.ask_node(before) is None
    assert home.ask_node(renewed) is None, "it was made after the list that the node knows"
    number = home.known().number
    home.coordinator = Coordinator(home.state, home.place)
    wait_until(lambda: home.known().number > number, limit_seconds=LIMIT_SECONDS, what="a later list")
    assert home.ask_node(renewed) is None
    assert isinstance(home.ask_node(before), NotTrusted)


def test_a_node_believes_the_authority_and_the_higher_number(tmp_path: Path) -> None:
    """Whoever presents a list; what cannot be believed changes nothing, and what was known is kept."""
    authority, other = make_authority("home"), make_authority("home")
    known = KnownMembers(tmp_path, lambda: authority.certificate)
    caller = Caller(host="10.0.0.2", deadline=0.0, connection=None, serial="a1")  # type: ignore[arg-type] # not looked at
    laptop = PeerName(mesh="home", role=NODE, name="laptop")
    assert known.refusal(laptop, caller) == ""

    def present(number: int, *serials: str, key: bytes = authority.key, mesh: str = "home") -> None:
        made = MemberList(
            mesh=mesh, number=number, made_at=0, members=frozenset(serials), coordinators=frozenset(("c1",))
        )
        known.hear(made.content, signature(key, made.content))

    present(5, "a1", "b2")
    assert known.refusal(laptop, caller) == ""
    present(6, "b2")
    assert "not good any more" in known.refusal(laptop, caller)
    present(5, "a1", "b2")
    for wrong in ({"key": other.key}, {"mesh": "attic"}):
        with pytest.raises(NotTrusted):
            present(7, "a1", **wrong)  # type: ignore[arg-type] # one of each
    assert "not good any more" in known.refusal(laptop, caller)
    again = KnownMembers(tmp_path, lambda: authority.certificate)
    assert again.number == 6
    assert "not good any more" in again.refusal(laptop, caller)
    with pytest.raises(NotTrusted):
        believed(b"{}", b"", authority.certificate)
    for name in ("members.signed", "members.signed.copy"):
        (tmp_path / name).write_bytes(b"{")
    assert KnownMembers(tmp_path, lambda: authority.certificate).number == 0


def test_nobody_listens_any_more_where_a_coordinator_has_ended(home: Home) -> None:
    """Its gate ends with it: who comes then is not left waiting."""
    home.coordinator.close()
    assert isinstance(beat(home.coordinator, home.laptop), NodeLost)
