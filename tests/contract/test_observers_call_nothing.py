"""May somebody who reads metrics do anything else? Every method of every service, called by an observer.

Covers: the coordinator's listeners for members and for devices, a node's; health and reflection too; places that calls
without a message would hold.
Does not cover: the owner's socket, which no certificate opens, and metrics themselves (test_metrics_access.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from common.trust.certificates import COORDINATOR, NODE, KeyedCertificate, PeerName
from common.trust.identity import Identity
from common.trust.tls import secure_channel
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import MEMBER_WORKERS, Coordinator
from protos.shardmesh.v1 import generation_pb2, links_pb2, mesh_pb2, models_pb2, observe_pb2, shard_pb2, slices_pb2
from shardnode.membership.join import join_mesh
from shardnode.run import RunningNode
from tests.support.free_ports import free_place
from tests.support.mesh_members import LIMIT_SECONDS, beat, joined, token_of
from tests.support.scraping import observer_of
from tests.support.sliced_models import SlicedModel

CONTRACTS: tuple[FileDescriptor, ...] = tuple(
    contract.DESCRIPTOR
    for contract in (
        generation_pb2, links_pb2, mesh_pb2, models_pb2, observe_pb2, shard_pb2, slices_pb2, health_pb2,
        reflection_pb2,
    )
)  # fmt: skip
REFUSED_BY_TLS, REFUSED, NOT_THERE = "UNAVAILABLE", "PERMISSION_DENIED", "UNIMPLEMENTED"
HOME = PeerName(mesh="home", role=COORDINATOR, name="home")
CALL_SECONDS = 2.0


def methods() -> list[str]:
    """Return every method that there is, as it is called."""
    return [
        f"/{service.full_name}/{method.name}"
        for contract in CONTRACTS
        for service in contract.services_by_name.values()
        for method in service.methods
    ]


def answers(channel: grpc.Channel) -> dict[str, str]:
    """Return with which status each method ends that is called with an empty message."""
    found = {}
    for method in methods():
        call = channel.stream_stream(method, request_serializer=bytes, response_deserializer=bytes)
        try:
            for _ in call(iter([b""]), timeout=LIMIT_SECONDS):
                break
            found[method] = "OK"
        except grpc.RpcError as error:
            found[method] = error.code().name
    return found


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[tuple[Coordinator, Identity]]:
    """Return a mesh's coordinator and the identity of somebody who may read its metrics."""
    init_mesh(tmp_path / "state", "home")
    coordinator = Coordinator(tmp_path / "state", free_place())
    files = observer_of(tmp_path / "state", "prometheus", tmp_path / "observer")
    own = KeyedCertificate(key=files.key.read_bytes(), certificate=files.certificate.read_bytes())
    yield coordinator, Identity(authority=files.authority.read_bytes(), own=own)
    coordinator.close()


def test_the_coordinator_answers_an_observer_nothing(observer: tuple[Coordinator, Identity]) -> None:
    """No method of any service, health and reflection neither: the handshake does not come to its end."""
    coordinator, identity = observer
    with secure_channel(coordinator.address, identity, HOME) as channel:
        assert set(answers(channel).values()) == {REFUSED_BY_TLS}


def test_a_node_answers_an_observer_nothing(
    observer: tuple[Coordinator, Identity], sliced: SlicedModel, tmp_path: Path
) -> None:
    """No method of any service either."""
    coordinator, identity = observer
    join_mesh(token_of(tmp_path / "state"), "kitchen", tmp_path / "data", "127.0.0.1:0")
    node = RunningNode(sliced.node_config(coordinator=coordinator.address, data_directory=tmp_path / "data"))
    try:
        with secure_channel(node.address, identity, PeerName(mesh="home", role=NODE, name="kitchen")) as channel:
            assert set(answers(channel).values()) == {REFUSED_BY_TLS}
    finally:
        node.close()


def test_an_observer_holds_nobodys_place(observer: tuple[Coordinator, Identity], tmp_path: Path) -> None:
    """gRPC takes a worker when a call opens: with calls that never say anything it kept all nodes unheard."""
    coordinator, identity = observer
    member = joined(tmp_path / "state", "kitchen", tmp_path / "data")
    ending = threading.Event()

    def nothing() -> Iterator[bytes]:
        ending.wait(LIMIT_SECONDS)
        yield from ()

    with secure_channel(coordinator.address, identity, HOME) as channel:
        call = channel.stream_stream(
            "/shardmesh.v1.MeshService/Heartbeat", request_serializer=bytes, response_deserializer=bytes
        )
        calls = [call(nothing(), timeout=CALL_SECONDS, wait_for_ready=True) for _ in range(MEMBER_WORKERS + 12)]
        assert {held.code().name for held in calls} == {"DEADLINE_EXCEEDED"}  # it has been tried for so long
        assert beat(coordinator, member) is None
        ending.set()


def test_the_door_for_devices_lets_no_observer_in(observer: tuple[Coordinator, Identity], tmp_path: Path) -> None:
    """It asks for a token and no certificate: one without is refused, whoever it is."""
    coordinator, identity = observer
    token_of(tmp_path / "state")  # without one, nobody listens there
    door = coordinator._door
    assert door is not None
    (address,) = door.addresses()
    with secure_channel(address, identity, HOME) as channel:
        found = answers(channel)
    refused = {method for method, status in found.items() if status == REFUSED}
    assert refused == {"/shardmesh.v1.JoinService/Join", "/shardmesh.v1.JoinService/RenewEnded"}
    assert set(found.values()) == {REFUSED, NOT_THERE}


def test_no_service_is_left_out() -> None:
    """Every contract that lies in protos is called: a new one has to be added here."""
    names = {path.stem for path in (Path(__file__).parents[2] / "protos/shardmesh/v1").glob("*.proto")}
    here = {Path(contract.name).stem for contract in CONTRACTS if contract.name.startswith("protos/")}
    assert names - {"tensor"} == here
