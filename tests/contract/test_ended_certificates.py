"""Does a node that was off for too long, or whose clock jumped, come back by itself, and nobody in its place?

Covers: certificates that have ended or have not begun, asked for anew where devices join; a coordinator's clock that
was 100 days off. Does not cover: renewal in time (test_trust_faults.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import pytest

from common.errors import NodeLost, NotTrusted, SliceMismatch
from common.trust.certificates import (
    COORDINATOR,
    LEAF_LIFETIME,
    KeyedCertificate,
    PeerName,
    is_in_time,
    lifetime_of,
    needs_renewal,
    serial_of,
)
from common.trust.identity import Identity, load_identity, save_identity
from common.trust.signing import certify, make_authority, make_key, make_request
from common.trust.tls import channel_to_authority
from common.wire.addresses import host_port, split_host_port
from common.wire.rpc import error_from_rpc
from coordinator.membership.state import init_mesh, open_mesh_state
from coordinator.program.daemon import Coordinator
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc
from shardnode.membership.ended import renewed
from shardnode.membership.join import IDENTITY_DIRECTORY
from shardnode.membership.membership import Membership, Presence
from tests.support.free_ports import free_place
from tests.support.mesh_members import RequestMakerHere, joined
from tests.support.trust_in_files import age_certificate

HERE = Presence(listen="127.0.0.1:5")


class Home:
    """A mesh with one node, whose coordinator is stopped and started."""

    def __init__(self, directory: Path) -> None:
        self.state, self.data = directory / "state", directory / "kitchen"
        self.identity_directory = self.data / IDENTITY_DIRECTORY
        self.address = free_place()
        init_mesh(self.state, "home")
        self.coordinator = Coordinator(self.state, self.address)
        joined(self.state, "kitchen", self.data)

    def be_away(self, days_left: float) -> None:
        """Let time pass until the node's certificate has so many days left, and start the coordinator again."""
        self.coordinator.close()
        age_certificate(self.state, self.data, days_left=days_left)
        self.coordinator = Coordinator(self.state, self.address)
        self.look_at_door()

    def look_at_door(self) -> None:
        """Open or close the place where devices join, as it is minded once a second."""
        assert self.coordinator._door is not None
        self.coordinator._door.look()

    def turn(self) -> Identity:
        """Start the node, have it send a heartbeat, and return the identity that it has then."""
        node = Membership(self.identity_directory, self.data, self.address)
        node._maker = RequestMakerHere()
        try:
            node.turn(HERE)
            return node.identity()
        finally:
            node.close()
            node._hang_up()

    def ask(self, certificate: bytes, key: bytes) -> Exception:
        """Ask for a certificate in the place of one that has ended, with any key; return what is answered."""
        host, port = split_host_port(self.address)
        expected = PeerName(mesh="home", role=COORDINATOR, name="home")
        authority = load_identity(self.state).authority
        request = mesh_pb2.RenewEndedRequest(certificate=certificate, certificate_request=make_request(key))
        with channel_to_authority(host_port(host, port + 1), authority, expected) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                mesh_pb2_grpc.JoinServiceStub(channel).RenewEnded(request, timeout=10)
            return error_from_rpc(refused.value, "coordinator")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a mesh whose coordinator runs."""
    made = Home(tmp_path)
    yield made
    made.coordinator.close()


@pytest.mark.parametrize("days_left", [-10, -1000, 190], ids=["ended", "ended years ago", "not begun"])
def test_a_node_whose_certificate_is_out_of_its_time_comes_back_by_itself(
    home: Home, days_left: float, caplog: pytest.LogCaptureFixture
) -> None:
    """It was locked out for ever, without a word why. Its log says what has happened; heartbeats go on, also later."""
    home.be_away(days_left)
    before = load_identity(home.identity_directory)
    assert not is_in_time(before.own.certificate)
    after = home.turn()
    assert is_in_time(after.own.certificate)
    assert after == load_identity(home.identity_directory)
    assert "certificate had ended and is renewed" in caplog.text
    assert home.coordinator._state.members.get("kitchen").serials == (serial_of(after.own.certificate),)
    assert home.turn() == after
    home.look_at_door()
    with pytest.raises(NodeLost, match=r"certificate \w+ on .*clock says .*not renewed"):
        renewed(before, RequestMakerHere().make(before.own.key), home.address)  # the door is closed again


def test_a_removed_node_stays_out_however_long_it_was_off(home: Home) -> None:
    """Its serial number is on no list."""
    home.be_away(-10)
    home.coordinator._state.members.remove("kitchen")
    other = joined(home.state, "attic", home.data.parent / "attic")
    assert is_in_time(other.own.certificate)
    with home.coordinator._state.book.lock:  # somebody else's has ended, so the door is open
        home.coordinator._state.book.note(invites={"x": home.coordinator._state.book.clock() + 60})
    home.look_at_door()
    with pytest.raises(NotTrusted, match=r"ended on .*was removed; let it join again with a new token"):
        home.turn()


def test_who_has_only_seen_the_certificate_gets_none(home: Home) -> None:
    """The key has to be that certificate's, the certificate the mesh's, and out of its time."""
    home.be_away(-10)
    ended = load_identity(home.identity_directory).own
    assert isinstance(home.ask(ended.certificate, make_key()), NotTrusted)
    assert isinstance(home.ask(b"nonsense", ended.key), NotTrusted)
    stranger, key = make_authority("home"), make_key()
    long_ago = datetime.now(timezone.utc) - timedelta(days=100)
    forged = certify(
        stranger, make_request(key), load_identity(home.identity_directory).peer, now=long_ago
    )  # fmt: skip
    assert isinstance(home.ask(forged, key), NotTrusted)
    own = home.coordinator._state.identity().own
    assert isinstance(home.ask(own.certificate, own.key), NotTrusted)
    assert home.coordinator._state.members.get("kitchen").serials == (serial_of(ended.certificate),)
    in_time = joined(home.state, "attic", home.data.parent / "attic").own
    assert isinstance(home.ask(in_time.certificate, in_time.key), SliceMismatch)


@pytest.mark.parametrize("days", [100, -100])
def test_a_coordinator_whose_clock_was_wrong_shows_a_good_certificate_once_it_is_right(
    tmp_path: Path, days: int
) -> None:
    """One that was made 100 days ahead has not begun, and would have been shown until then."""
    init_mesh(tmp_path, "home")
    state = open_mesh_state(tmp_path)
    key, then = make_key(), datetime.now(timezone.utc) + timedelta(days=days)
    certificate = certify(state.authority, make_request(key), state.peer, now=then)
    own = KeyedCertificate(key=key, certificate=certificate)
    save_identity(tmp_path, Identity(authority=state.authority.certificate, own=own))
    assert not is_in_time(certificate)
    assert is_in_time(open_mesh_state(tmp_path).identity().own.certificate)
    begins, ends = lifetime_of(certificate)
    assert needs_renewal(certificate, begins - timedelta(days=2))
    assert not needs_renewal(certificate, begins + LEAF_LIFETIME / 2)
    assert needs_renewal(certificate, ends)
