"""May somebody who reads metrics do anything else? Every method of every service, called by an observer.

Covers: the coordinator's listeners for members and for devices, a node's; health and reflection too.
Does not cover: the owner's socket, which no certificate opens, and metrics themselves (test_metrics_access.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from common.trust.certificates import COORDINATOR, NODE, PeerName
from common.trust.identity import Identity
from common.trust.tls import secure_channel
from coordinator.membership.state import init_mesh
from coordinator.program.daemon import Coordinator
from protos.shardmesh.v1 import generation_pb2, links_pb2, mesh_pb2, models_pb2, shard_pb2, slices_pb2
from shardnode.membership.join import join_mesh
from shardnode.run import RunningNode
from tests.support.mesh_members import LIMIT_SECONDS, state_of, token_of
from tests.support.scraping import observer_of
from tests.support.sliced_models import SlicedModel

CONTRACTS: tuple[FileDescriptor, ...] = tuple(
    contract.DESCRIPTOR
    for contract in (
        generation_pb2, links_pb2, mesh_pb2, models_pb2, shard_pb2, slices_pb2, health_pb2, reflection_pb2,
    )
)  # fmt: skip
STANDARD = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
REFUSED, NOT_THERE = "PERMISSION_DENIED", "UNIMPLEMENTED"


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


def services_with(found: dict[str, str], status: str) -> set[str]:
    """Return the services all of whose methods end so."""
    services = {method.split("/")[1] for method in found}
    return {
        service
        for service in services
        if {code for method, code in found.items() if method.split("/")[1] == service} == {status}
    }


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[tuple[Coordinator, Identity]]:
    """Return a mesh's coordinator and the identity of somebody who may read its metrics."""
    init_mesh(tmp_path / "state", "home")
    coordinator = Coordinator(tmp_path / "state", "127.0.0.1:0")
    files = observer_of(tmp_path / "state", "prometheus", tmp_path / "observer")
    own = type(state_of(tmp_path / "state").identity().own)(
        key=files.key.read_bytes(), certificate=files.certificate.read_bytes()
    )
    yield coordinator, Identity(authority=files.authority.read_bytes(), own=own)
    coordinator.close()


def test_the_coordinator_answers_an_observer_nothing(observer: tuple[Coordinator, Identity]) -> None:
    """Every service of the members' listener refuses it, health and reflection too; others are not there."""
    coordinator, identity = observer
    peer = PeerName(mesh="home", role=COORDINATOR, name="home")
    with secure_channel(coordinator.address, identity, peer) as channel:
        found = answers(channel)
    here = {"shardmesh.v1.MeshService", "shardmesh.v1.GenerationService", *STANDARD}
    assert services_with(found, REFUSED) == here
    assert services_with(found, NOT_THERE) == {method.split("/")[1] for method in found} - here


def test_the_door_for_devices_lets_no_observer_in(observer: tuple[Coordinator, Identity], tmp_path: Path) -> None:
    """It asks for a token and no certificate: one without is refused, whoever it is."""
    coordinator, identity = observer
    token_of(tmp_path / "state")  # without one, nobody listens there
    door = coordinator._door
    assert door is not None
    (address,) = door.addresses()
    with secure_channel(address, identity, PeerName(mesh="home", role=COORDINATOR, name="home")) as channel:
        found = answers(channel)
    assert services_with(found, REFUSED) == {"shardmesh.v1.JoinService"}
    assert set(found.values()) == {REFUSED, NOT_THERE}


def test_a_node_answers_an_observer_nothing(
    observer: tuple[Coordinator, Identity], sliced: SlicedModel, tmp_path: Path
) -> None:
    """Every service of its listener refuses it, health and reflection too."""
    coordinator, identity = observer
    join_mesh(token_of(tmp_path / "state"), "kitchen", tmp_path / "data", "127.0.0.1:0")
    node = RunningNode(sliced.node_config(coordinator=coordinator.address, data_directory=tmp_path / "data"))
    try:
        with secure_channel(node.address, identity, PeerName(mesh="home", role=NODE, name="kitchen")) as channel:
            found = answers(channel)
    finally:
        node.close()
    here = {f"shardmesh.v1.{name}" for name in ("ShardService", "LinkService", "SliceService")} | STANDARD
    assert services_with(found, REFUSED) == here
    assert services_with(found, NOT_THERE) == {method.split("/")[1] for method in found} - here


def test_no_service_is_left_out() -> None:
    """Every contract that lies in protos is called: a new one has to be added here."""
    names = {path.stem for path in (Path(__file__).parents[2] / "protos/shardmesh/v1").glob("*.proto")}
    here = {Path(contract.name).stem for contract in CONTRACTS if contract.name.startswith("protos/")}
    assert names - {"tensor"} == here
