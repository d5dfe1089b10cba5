"""Who is let in, and who is not? A real coordinator and real nodes over TLS on loopback; strangers of every kind.

Covers: tokens, mutual TLS both ways, revocation, renewal, another node's identity or mesh, plain text, bytes.
Does not cover: whole programs (tests/e2e/test_mesh_of_devices.py), certificates (tests/unit/test_certificates.py).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from common.errors import InputError, NameTaken, NodeLost, NotTrusted, ShardmeshError, SliceMismatch, TokenRefused
from common.trust.certificates import COORDINATOR, NODE, PeerName
from common.trust.identity import Identity, load_identity
from common.trust.join_token import parse_token
from common.trust.signing import make_authority, make_key, make_request
from common.trust.tls import channel_to_authority, secure_channel
from common.wire.addresses import split_host_port
from common.wire.rpc import error_from_rpc
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc, shard_pb2, shard_pb2_grpc
from shardnode.membership.join import IDENTITY_DIRECTORY, join_mesh
from shardnode.membership.membership import Membership, Presence
from shardnode.run import RunningNode
from tests.support.free_ports import free_place
from tests.support.mesh_members import (
    DEVICE,
    LIMIT_SECONDS,
    aged_identity,
    beat,
    forged,
    joined,
    state_of,
    token_of,
)
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Coordinator, Path]]:
    """Return a coordinator of a mesh called home, and its state directory."""
    directory = tmp_path_factory.mktemp("state")
    init_mesh(directory, "home")
    coordinator = Coordinator(directory, free_place())
    yield coordinator, directory
    coordinator.close()


def test_a_device_with_a_token_is_let_in_once(mesh: tuple[Coordinator, Path], tmp_path: Path) -> None:
    """Its key stays where it was made; the token is worth nothing afterwards; nobody else reads what it wrote."""
    coordinator, directory = mesh
    token = token_of(directory)
    made = join_mesh(token, "first", tmp_path / "a", "127.0.0.1:0")
    assert (made.mesh, made.name) == ("home", "first")
    assert beat(coordinator, load_identity(tmp_path / "a" / IDENTITY_DIRECTORY)) is None
    for path in (tmp_path / "a").rglob("*"):
        assert not path.stat().st_mode & 0o077, path
    files = {path.name for path in (tmp_path / "a" / IDENTITY_DIRECTORY).iterdir()}
    assert files == {"authority.pem", "authority.pem.copy", "identity.pem", "identity.pem.copy"}
    with pytest.raises((TokenRefused, NodeLost)):
        join_mesh(token, "second", tmp_path / "b", "127.0.0.1:0")
    with OwnerClient(directory) as owner:
        assert "first" in [node.name for node in owner.nodes().nodes]


def test_a_name_that_is_taken_costs_no_token(mesh: tuple[Coordinator, Path], tmp_path: Path) -> None:
    """The same token with another name is good."""
    _, directory = mesh
    joined(directory, "taken", tmp_path / "a")
    token = token_of(directory)
    with pytest.raises(NameTaken, match="choose another --name"):
        join_mesh(token, "taken", tmp_path / "b", "127.0.0.1:0")
    assert join_mesh(token, "free", tmp_path / "b", "127.0.0.1:0").name == "free"
    with pytest.raises(InputError, match="belongs to a mesh already"):
        join_mesh(token_of(directory), "again", tmp_path / "b", "127.0.0.1:0")


def test_two_devices_with_one_token_are_not_both_let_in(mesh: tuple[Coordinator, Path], tmp_path: Path) -> None:
    """However close they come."""
    _, directory = mesh
    token = token_of(directory)

    def attempt(number: int) -> str:
        try:
            return join_mesh(token, f"racer{number}", tmp_path / str(number), "127.0.0.1:0").name
        except (TokenRefused, NodeLost):
            return ""

    with ThreadPoolExecutor(4) as threads:
        assert len([name for name in threads.map(attempt, range(4)) if name]) == 1


def test_the_door_is_closed_when_there_is_no_token(tmp_path: Path) -> None:
    """Before the first, and once the last device that it let in was seen: until then its answer may have been lost."""
    init_mesh(tmp_path, "closed")
    coordinator = Coordinator(tmp_path, free_place())
    try:
        token = token_of(tmp_path)
        (address,) = parse_token(token).addresses
        join_mesh(token, "only", tmp_path / "only", "127.0.0.1:0")

        def is_closed() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(split_host_port(address)) != 0

        assert not is_closed()
        assert beat(coordinator, load_identity(tmp_path / "only" / IDENTITY_DIRECTORY), "closed") is None
        wait_until(is_closed, limit_seconds=LIMIT_SECONDS, what="a closed door")
    finally:
        coordinator.close()


def test_another_coordinator_behind_the_address_is_not_believed(mesh: tuple[Coordinator, Path], tmp_path: Path) -> None:
    """A token names one authority; the secret is not even sent to another."""
    init_mesh(tmp_path, "home")
    other = Coordinator(tmp_path, free_place())
    try:
        theirs = parse_token(token_of(tmp_path))
        mine = parse_token(token_of(mesh[1]))
        crossed = type(mine)(
            addresses=theirs.addresses, authority_fingerprint=mine.authority_fingerprint, secret=mine.secret
        )
        with pytest.raises(NotTrusted, match="not the coordinator that made this token"):
            join_mesh(crossed.text, "lost", tmp_path / "lost", "127.0.0.1:0")
    finally:
        other.close()


def test_nobody_at_the_address_is_a_lost_coordinator(tmp_path: Path, mesh: tuple[Coordinator, Path]) -> None:
    """Also one who accepts and says nothing sensible."""
    token = parse_token(token_of(mesh[1]))
    with socket.create_server(("127.0.0.1", 0)) as babbler:

        def babble() -> None:
            connection, _ = babbler.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        for port in (babbler.getsockname()[1], 1):
            wrong = type(token)(
                addresses=(f"127.0.0.1:{port}",), authority_fingerprint=token.authority_fingerprint, secret=token.secret
            )
            with pytest.raises(NodeLost, match="is it running"):
                join_mesh(wrong.text, "lost", tmp_path / "lost", "127.0.0.1:0")
        thread.join()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda request: setattr(request, "name", "../../etc"), InputError),
        (lambda request: setattr(request, "certificate_request", b"x" * 100_000), InputError),
        (lambda request: setattr(request.device, "protocol_version", 99), SliceMismatch),
        (lambda request: setattr(request.device, "memory_bytes", -1), InputError),
        (lambda request: setattr(request, "secret", b""), TokenRefused),
        (lambda request: setattr(request, "secret", b"x" * 1_000_000), TokenRefused),
    ],
)
def test_a_request_that_lies_is_refused(
    mesh: tuple[Coordinator, Path], change: Callable[[mesh_pb2.JoinRequest], object], kind: type[ShardmeshError]
) -> None:
    """With one line, and nobody is let in."""
    _, directory = mesh
    token = parse_token(token_of(directory))
    request = mesh_pb2.JoinRequest(
        secret=token.secret, name="liar", certificate_request=make_request(make_key()), device=DEVICE
    )
    change(request)
    peer = PeerName(mesh="home", role=COORDINATOR, name="home")
    authority = state_of(directory).authority.certificate
    with channel_to_authority(token.addresses[0], authority, peer) as channel, pytest.raises(grpc.RpcError) as caught:
        mesh_pb2_grpc.JoinServiceStub(channel).Join(request, timeout=LIMIT_SECONDS)
    assert type(error_from_rpc(caught.value, "coordinator")) is kind
    assert "liar" not in [member.name for member in state_of(directory).members.all()]


def test_strangers_are_not_heard(mesh: tuple[Coordinator, Path], tmp_path: Path) -> None:
    """Another authority, an expired certificate, a removed node, another role or mesh, no certificate at all."""
    coordinator, directory = mesh
    state = state_of(directory)
    good = joined(directory, "good", tmp_path / "good")
    node = PeerName(mesh="home", role=NODE, name="good")
    strangers = {
        "another authority": forged(make_authority("home"), node, state.authority.certificate),
        "expired": forged(state.authority, node, state.authority.certificate, ends=timedelta(seconds=-60)),
        "never admitted": forged(
            state.authority, PeerName(mesh="home", role=NODE, name="ghost"), state.authority.certificate
        ),
        "a second certificate of a member": forged(state.authority, node, state.authority.certificate),
        "a coordinator": forged(
            state.authority, PeerName(mesh="home", role=COORDINATOR, name="x"), state.authority.certificate
        ),
        "another mesh": forged(
            state.authority, PeerName(mesh="work", role=NODE, name="good"), state.authority.certificate
        ),
    }
    for what, identity in strangers.items():
        assert isinstance(beat(coordinator, identity), (NotTrusted, NodeLost)), what
    with grpc.insecure_channel(coordinator.address) as plain, pytest.raises(grpc.RpcError):
        mesh_pb2_grpc.MeshServiceStub(plain).Heartbeat(mesh_pb2.HeartbeatRequest(), timeout=LIMIT_SECONDS)
    assert beat(coordinator, good) is None
    with OwnerClient(directory) as owner:
        owner.remove("good")
    assert isinstance(beat(coordinator, good), NotTrusted)


def test_random_bytes_and_idle_connections_stop_nothing(mesh: tuple[Coordinator, Path], tmp_path: Path) -> None:
    """A thousand of them on its port, half silent, half with bytes that mean nothing."""
    coordinator, directory = mesh
    good = joined(directory, "busy", tmp_path / "busy")
    connections = []
    for number in range(1000):
        connection = socket.create_connection(split_host_port(coordinator.address))
        if number % 2:
            connection.sendall(os.urandom(300))
        connections.append(connection)
    assert beat(coordinator, good) is None
    for connection in connections:
        connection.close()


def test_a_node_serves_its_coordinator_and_nobody_else(
    mesh: tuple[Coordinator, Path], sliced: SlicedModel, tmp_path: Path
) -> None:
    """Not another node of the same mesh, not another mesh's coordinator, not who has no certificate."""
    coordinator, directory = mesh
    other = joined(directory, "other", tmp_path / "other")
    joined(directory, "server", tmp_path / "server")
    config = sliced.node_config(coordinator=coordinator.address, data_directory=tmp_path / "server")
    node = RunningNode(config)
    try:
        state = state_of(directory)
        server = PeerName(mesh="home", role=NODE, name="server")

        def ask(identity: Identity, expected: PeerName = server) -> str:
            with secure_channel(node.address, identity, expected) as channel:
                try:
                    stub = shard_pb2_grpc.ShardServiceStub(channel)
                    stats = stub.GetStats(shard_pb2.GetStatsRequest(), timeout=LIMIT_SECONDS)
                    return f"rank {stats.rank}"
                except grpc.RpcError as error:
                    return type(error_from_rpc(error, "node")).__name__

        assert ask(state.identity()) == "rank 0"
        assert ask(other) == "NotTrusted"
        assert ask(state.identity(), PeerName(mesh="home", role=NODE, name="other")) == "NodeLost"
        stranger = forged(make_authority("home"), state.peer, state.authority.certificate)
        assert ask(stranger) == "NodeLost"
        with grpc.insecure_channel(node.address) as plain, pytest.raises(grpc.RpcError):
            shard_pb2_grpc.ShardServiceStub(plain).GetStats(shard_pb2.GetStatsRequest(), timeout=LIMIT_SECONDS)

        def is_known() -> bool:
            with OwnerClient(directory) as owner:
                return node.address in [known.address for known in owner.nodes().nodes]

        wait_until(is_known, limit_seconds=LIMIT_SECONDS, what="a heartbeat")
    finally:
        node.close()


def test_a_certificate_renews_itself(mesh: tuple[Coordinator, Path], tmp_path: Path) -> None:
    """When two thirds of its life are over; the new key is on disk before it is used, and the old one is refused."""
    coordinator, directory = mesh
    joined(directory, "old", tmp_path / "old")
    identity_directory = tmp_path / "old" / IDENTITY_DIRECTORY
    aged = aged_identity(coordinator, identity_directory)
    membership = Membership(identity_directory, tmp_path / "old", coordinator.address)
    membership.start(lambda: Presence(listen="127.0.0.1:9"))
    try:
        wait_until(
            lambda: load_identity(identity_directory) != aged, limit_seconds=LIMIT_SECONDS, what="a new certificate"
        )
        renewed = load_identity(identity_directory)
        assert beat(coordinator, renewed) is None
        assert isinstance(beat(coordinator, aged), NotTrusted)
        wait_until(lambda: membership.identity() == renewed, limit_seconds=LIMIT_SECONDS, what="it is used")
    finally:
        membership.close()
