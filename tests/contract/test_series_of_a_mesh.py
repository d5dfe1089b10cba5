"""Are a true mesh's members and models on the coordinator's page by their names, and gone from it when they are gone?

Covers: a coordinator and a node in this process, heartbeats, a loaded model, answers, reconnecting, unloading, removal.
Does not cover: names and labels of all series (test_metrics_page.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from common.trust.certificates import lifetime_of
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import owner_access
from coordinator.membership.services import clock_skew
from coordinator.models.records import LoadedModels
from coordinator.models.unloading import unload
from protos.shardmesh.v1 import mesh_pb2
from tests.support.loaded_mesh import LoadedMesh
from tests.support.metrics_pages import label_values, total
from tests.support.shipped_slices import NAME
from tests.support.waiting import wait_until

PREFIX = "shardmesh_coordinator_"
MODEL = {"model": "tiny"}
NODE = {"node": NAME}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedMesh]:
    """Return a mesh of one node with a model loaded; tests of this file follow one another, to its end."""
    with LoadedMesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def page_of(mesh: LoadedMesh) -> str:
    """Return the coordinator's page."""
    return generate_latest(mesh.coordinator.series.registry).decode()


def node_page_of(mesh: LoadedMesh) -> str:
    """Return the node's page."""
    return generate_latest(mesh.node.series.registry).decode()


def test_a_model_and_its_nodes_are_shown_by_name_before_anybody_asks(mesh: LoadedMesh) -> None:
    """Counters begin at 0, so that the first of anything is a rise."""
    wait_until(lambda: f'{PREFIX}node_serves{{model="tiny",node="{NAME}"}} 1.0' in page_of(mesh), limit_seconds=10,
               what="the node says what it serves")  # fmt: skip
    page = page_of(mesh)
    assert total(page, f"{PREFIX}model_loaded", **MODEL) == total(page, f"{PREFIX}model_nodes", **MODEL) == 1
    assert total(page, f"{PREFIX}node_up", **NODE) == 1
    assert total(page, "shardmesh_generation_tokens_total", **MODEL) == 0
    assert total(page, "shardmesh_request_failures_total", reason="NODE_LOST", **MODEL) == 0


def test_a_node_that_is_heard_tells_its_clock_and_when_its_certificate_ends(mesh: LoadedMesh) -> None:
    """Both clocks are this machine's; the coordinator's answer is what the node tells of."""
    name = f"{PREFIX}node_clock_skew_seconds"
    wait_until(lambda: f"\n{name}{{" in page_of(mesh), limit_seconds=15, what="three heartbeats over one connection")
    page, node = page_of(mesh), node_page_of(mesh)
    assert abs(total(page, name, **NODE)) < 1
    assert 0 <= total(page, f"{PREFIX}node_heartbeat_age_seconds", **NODE) < 10
    assert abs(total(node, "shardmesh_node_coordinator_heard_timestamp_seconds") - time.time()) < 10
    ends = total(page, f"{PREFIX}node_certificate_expiry_timestamp_seconds", **NODE)
    assert ends == total(node, "shardmesh_node_certificate_expiry_timestamp_seconds") > time.time()
    state = mesh.coordinator.series.state
    own = lifetime_of(state.identity().own.certificate)[1].timestamp()
    assert total(page, f"{PREFIX}certificate_expiry_timestamp_seconds") == own
    assert total(page, f"{PREFIX}authority_expiry_timestamp_seconds") > own


def test_answers_move_the_series_of_their_node_and_reconnecting_makes_no_others(mesh: LoadedMesh) -> None:
    """A node that was away is the same one."""
    answered = mesh.answer("1 2 3", length=5)
    rounds = total(page_of(mesh), f"{PREFIX}round_trip_seconds_count", **NODE)
    assert rounds > 0
    mesh.restart()
    mesh.wait_until_heard()
    assert mesh.answer("1 2 3", length=5) == answered
    page = page_of(mesh)
    assert total(page, f"{PREFIX}round_trip_seconds_count", **NODE) > rounds
    assert total(page, "shardmesh_request_success_total", finished_reason="length", **MODEL) == 2
    assert label_values(page)["node"] <= {NAME, ""}
    assert total(page, f"{PREFIX}read_bytes_total") > 0
    assert total(node_page_of(mesh), "shardmesh_node_disk_free_bytes") > 0


def test_a_model_that_is_unloaded_and_a_node_that_is_removed_have_no_series(mesh: LoadedMesh) -> None:
    """What is gone is no number that stands still for ever."""
    unload("tiny", LoadedModels(mesh.state), owner_access(mesh.state))
    with OwnerClient(mesh.state) as owner:
        owner.remove(NAME)
    wait_until(
        lambda: label_values(page_of(mesh)).get("node", set()) <= {""}
        and label_values(page_of(mesh)).get("model", set()) <= {""},
        limit_seconds=10, what="the node's series are gone, and the model's",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sent_at", "round_trip", "skew"),
    [(1000.0, 0.2, 0.1), (900.0, 0.2, -99.9), (0.0, 0.2, None), (1000.0, 0.0, None), (float("nan"), 0.2, None),
     (1000.0, float("inf"), None), (-5.0, 0.2, None)],
)  # fmt: skip
def test_a_clock_is_ahead_by_what_is_left_after_half_a_way(
    sent_at: float, round_trip: float, skew: float | None
) -> None:
    """A node of an earlier build, or one that says what cannot be, has no skew."""
    request = mesh_pb2.HeartbeatRequest(sent_at_seconds=sent_at, round_trip_seconds=round_trip)
    found = clock_skew(request, received_at=1000.0)
    assert found == (skew if skew is None else pytest.approx(skew))
