"""Does a node measure its device when its coordinator asks, and never when nobody waits for it?

Covers: real rates, what heartbeats tell afterwards, a caller that goes, no room for it. Does not cover: what plans make
of rates (tests/property/test_planning.py), links.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from unittest import mock

import grpc
import psutil
import pytest

from common.compute.device_speeds import DeviceSpeeds, kept_speeds
from common.errors import NodeLost
from common.model.plan import make_plan
from coordinator.cli.doctor import doctor
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import is_alive, owner_access
from coordinator.models.records import LoadedModel, LoadedModels
from coordinator.planning.devices import SMALL_PC
from coordinator.planning.prediction import Workload
from coordinator.planning.survey import survey
from protos.shardmesh.v1 import links_pb2, links_pb2_grpc, mesh_pb2
from tests.support.planned_models import DESCRIPTION
from tests.support.shipped_slices import NAME, ShippingMesh
from tests.support.waiting import wait_until

LIMIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShippingMesh]:
    """Return a coordinator and one node over real TLS; the node was never measured."""
    with ShippingMesh(tmp_path_factory.mktemp("mesh")) as made:
        nodes = owner_access(made.state_directory).nodes
        wait_until(lambda: any(map(is_alive, nodes())), limit_seconds=LIMIT_SECONDS, what="a first heartbeat")
        yield made


def measure(channel: grpc.Channel) -> grpc.Future[links_pb2.MeasureDeviceResponse]:
    """Ask for a measurement."""
    stub = links_pb2_grpc.LinkServiceStub(channel)
    return stub.MeasureDevice.future(links_pb2.MeasureDeviceRequest(), timeout=LIMIT_SECONDS)


def processes_that_measure() -> list[psutil.Process]:
    """Return what measures for a node of this process."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "common.compute.device_speeds" in child.cmdline():
                found.append(child)
    return found


def test_a_node_that_cannot_measure_says_so_and_keeps_what_it_knew(mesh: ShippingMesh) -> None:
    """Its process is ended before it has begun."""
    with (
        mock.patch("common.compute.device_speeds.APART_SECONDS", 0.0), closing(mesh.channel()) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):  # fmt: skip
        measure(channel).result()
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert kept_speeds(mesh.data) is None


def test_a_plan_for_devices_that_cannot_be_measured_counts_them_as_small_ones(mesh: ShippingMesh) -> None:
    """And says so; with rates of nothing no plan could be made."""
    said: list[str] = []
    access = owner_access(mesh.state_directory)
    with mock.patch("common.compute.device_speeds.APART_SECONDS", 0.0):
        found = survey(access, access.alive(), mesh.state_directory, 256, Workload(), said.append)
    assert found.speeds == {"kitchen": SMALL_PC}
    assert found.devices.own.disk_rate == SMALL_PC.disk_bytes_per_second
    assert sum("small PC" in line for line in said) == 2


def test_a_caller_that_goes_away_ends_the_measurement(mesh: ShippingMesh) -> None:
    """It would take seconds of a device for nobody."""
    with closing(mesh.channel()) as channel:
        call = measure(channel)
        wait_until(processes_that_measure, limit_seconds=LIMIT_SECONDS, what="a process that measures")
        call.cancel()
        wait_until(lambda: not processes_that_measure(), limit_seconds=5.0, what="its end")
    assert kept_speeds(mesh.data) is None


def test_a_node_measures_its_device_and_its_heartbeats_tell(mesh: ShippingMesh) -> None:
    """The rates are those of a real machine, and are kept."""
    with closing(mesh.channel()) as channel:
        rates = measure(channel).result()
    assert 1e8 < rates.memory_bytes_per_second < 1e13
    assert 1e6 < rates.disk_bytes_per_second < 1e12
    assert 1e8 < rates.arithmetic_per_second < 1e15
    kept = kept_speeds(mesh.data)
    assert kept is not None
    assert kept.disk_bytes_per_second == rates.disk_bytes_per_second

    def told() -> bool:
        with OwnerClient(mesh.state_directory) as owner:
            (node,) = owner.nodes().nodes
            return bool(node.device.disk_bytes_per_second == rates.disk_bytes_per_second)

    wait_until(told, limit_seconds=LIMIT_SECONDS, what="the coordinator knows")


def test_nobody_waits_for_devices_that_still_measure_once_one_is_gone(mesh: ShippingMesh) -> None:
    """Nor after Ctrl-C: measuring goes on for ten seconds, in which nothing would be said."""
    done = threading.Event()

    def measured(access: object, name: str) -> DeviceSpeeds:
        if name == "gone":
            raise NodeLost("gone is not reachable")
        done.wait(LIMIT_SECONDS)
        return DeviceSpeeds()

    nodes = [mesh_pb2.Node(name="busy"), mesh_pb2.Node(name="gone")]
    access = owner_access(mesh.state_directory)
    try:
        with mock.patch("coordinator.planning.survey.measure_device", measured), pytest.raises(NodeLost):
            survey(access, nodes[::-1], mesh.state_directory, 64, Workload(), lambda text: None)
        assert not done.is_set()
    finally:
        done.set()


def test_the_doctor_examines_the_nodes_that_are_there_and_names_those_that_a_model_lacks(
    mesh: ShippingMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    """When something is wrong is when it is asked."""
    models = LoadedModels(mesh.state_directory)
    directory = models.directory / "broken"
    directory.mkdir(parents=True)
    description = replace(DESCRIPTION, plan=make_plan(DESCRIPTION.spec, "uniform", 2))
    models.save(LoadedModel(
        name="broken", directory=directory, source="x", description=description, node_names=(NAME, "cellar")
    ))  # fmt: skip
    doctor(measure=False, state_dir=mesh.state_directory)
    said = capsys.readouterr().out
    assert f"\n{NAME} " in said
    assert "broken cannot answer without cellar" in said
