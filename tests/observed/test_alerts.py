"""Does each alert fire when what it is about really happens, and clear when that is over?

Covers: every alert of deploy/prometheus, of a real Prometheus that scrapes a mesh over TLS; faults are real ones.
Does not cover: how long each takes to fire, which is shortened here (deploy/prometheus/tests, run by promtool).
"""

from __future__ import annotations

import math
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from common.weights.stored_numbers import narrowed
from tests.support.mesh_of_hosts import DESK, NODE_PORT, PORT
from tests.support.network_hosts import GROUPS
from tests.support.observed_mesh import LIMIT_SECONDS, NODE_METRICS_PORT, ObservedMesh
from tests.support.process_limits import ProcessLimits
from tests.support.random_models import build, save
from tests.support.trust_in_files import age_certificate, make_old_authority
from tests.support.waiting import wait_until

BASELINE_SECONDS = 12
ENDLESS = 20_000
GROUP_MEMORY = 'shardmesh_node_group_memory_bytes{node="kitchen"} - shardmesh_node_group_page_cache_bytes'
NEAR = 0.965
THROTTLED_BYTES_PER_SECOND = 10e6
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def test_nothing_fires_while_the_mesh_is_well(observed: ObservedMesh) -> None:
    """Under load too, and with times as short as they are here."""
    with observed.asked():
        observed.until("count_over_time(mesh:shardmesh_generation_tokens:rate1m[20s]) > 18")
        observed.until_quiet()


def test_a_node_that_is_gone(observed: ObservedMesh) -> None:
    """ShardmeshNodeDown, and requests fail meanwhile: ShardmeshErrorRate."""
    with observed.asked(4, "one two three"):
        observed.until("shardmesh_num_requests_running > 0")
        observed.mesh.kill("kitchen")
        observed.until_fires("ShardmeshNodeDown", node="kitchen", mesh="home")
        observed.until_fires("ShardmeshErrorRate", model="small")
        assert observed.targets().keys() == {"attic", "kitchen"}
        observed.mesh.start_node("kitchen")
        observed.until_clear("ShardmeshNodeDown")
        observed.until_clear("ShardmeshErrorRate")


def test_a_coordinator_that_is_down(observed: ObservedMesh) -> None:
    """ShardmeshCoordinatorDown; nodes go on being scraped, whoever tells where they are."""
    observed.mesh.stop(DESK)
    observed.until_fires("ShardmeshCoordinatorDown")
    assert observed.prometheus.value('up{job="shardmesh-node"}') == 2
    observed.mesh.start_coordinator()
    observed.until_clear("ShardmeshCoordinatorDown")
    observed.mesh.wait_until_alive()


def test_a_node_whose_page_is_not_reached(observed: ObservedMesh) -> None:
    """ShardmeshNodeNotScraped: it is heard by one network, and read by another one, whose address it loses."""
    hosts, first, second = observed.mesh.hosts, "10.78.0.1/24", "10.78.0.2/24"
    hosts.add_address(DESK, first)
    hosts.add_address("attic", second)
    observed.restart("attic", ["--metrics-listen", f"10.78.0.2:{NODE_METRICS_PORT}"])
    wait_until(lambda: observed.targets()["attic"].startswith("10.78."), limit_seconds=10, what="the file follows")
    observed.until(f'up{{node="attic", instance="10.78.0.2:{NODE_METRICS_PORT}"}} == 1')
    observed.until_clear("ShardmeshNodeNotScraped")  # a node that starts is heard before it is read
    hosts.drop_address("attic", second)
    observed.until_fires("ShardmeshNodeNotScraped", node="attic")
    hosts.add_address("attic", second)
    observed.until_clear("ShardmeshNodeNotScraped")
    observed.restart("attic")
    hosts.drop_address(DESK, first)
    hosts.drop_address("attic", second)


def test_a_disk_that_is_slow(observed: ObservedMesh) -> None:
    """ShardmeshDiskSlow and ShardmeshWindowStarved, of the node that the kernel lets read little, and of no other."""
    with ExitStack() as closing:
        limits = closing.enter_context(ProcessLimits(observed.mesh.running["kitchen"].process.pid))
        closing.enter_context(observed.asked())
        usual = 'count_over_time(mesh_node:shardmesh_node_read:bytes_per_second5m{node="kitchen"}[1m])'
        observed.until(f"{usual} > {BASELINE_SECONDS}")
        observed.until_quiet()
        limits.set_disk(THROTTLED_BYTES_PER_SECOND, observed.home)
        observed.until_fires("ShardmeshDiskSlow", node="kitchen")
        observed.until_fires("ShardmeshWindowStarved", node="kitchen")
        assert not observed.prometheus.firing("ShardmeshDiskSlow", node="attic")
        limits.close()
        observed.until_clear("ShardmeshDiskSlow")
        observed.until_clear("ShardmeshWindowStarved")


def test_memory_near_its_limit(observed: ObservedMesh) -> None:
    """ShardmeshMemoryNearLimit: the group of a node gets a limit just above what the node has."""
    limit = _group_of(observed, "kitchen") / "memory.limit_in_bytes"
    before, alert = limit.read_text(), "ShardmeshMemoryNearLimit"
    assert not observed.prometheus.firing(alert)

    def fires_with_less() -> bool:
        taken = observed.prometheus.value(GROUP_MEMORY)  # less from time to time: the kernel takes back what it can
        limit.write_text(str(int(taken / NEAR)))
        return observed.prometheus.firing(alert, node="kitchen")

    try:
        wait_until(fires_with_less, limit_seconds=LIMIT_SECONDS, what=f"{alert} fires")
    finally:
        limit.write_text(before)
    observed.until_clear(alert)


def test_a_node_that_everybody_waits_for(observed: ObservedMesh) -> None:
    """ShardmeshNodeSlow: it gets a fiftieth of a core in the middle of answers."""
    with ExitStack() as closing:
        limits = closing.enter_context(ProcessLimits(observed.mesh.running["kitchen"].process.pid))
        closing.enter_context(observed.asked(2, "one two three", 400))
        observed.until("rate(shardmesh_generation_tokens_total[10s]) > 1")
        observed.until("count_over_time(shardmesh_num_requests_running[10s]) > 8")
        limits.set_processor(0.02)
        observed.until_fires("ShardmeshNodeSlow", node="kitchen")
        limits.close()
        observed.until_clear("ShardmeshNodeSlow")


def test_a_port_for_rounds_that_is_not_to_be_had(observed: ObservedMesh) -> None:
    """ShardmeshRoundsOverGrpc: another program has the port of a node when it starts."""
    over = 'shardmesh_coordinator_round_transport{{node="attic", transport="{}"}} == 1'
    with observed.asked(2, "one two three"):
        observed.until(over.format("frames"))
        observed.mesh.stop("attic")
        with observed.mesh.hosts.taken("attic", NODE_PORT + 10):
            observed.mesh.start_node("attic")
            observed.until(over.format("grpc"))
            observed.until_fires("ShardmeshRoundsOverGrpc", node="attic")
            assert not observed.prometheus.firing("ShardmeshRoundsOverGrpc", node="kitchen")
        observed.restart("attic")
        observed.until_clear("ShardmeshRoundsOverGrpc")
        observed.until(over.format("frames"))


def test_a_queue_that_is_full(observed: ObservedMesh) -> None:
    """ShardmeshQueueFull: twenty people ask at once, and have long answers."""
    with observed.asked(20, "one two three", 200):
        observed.until_fires("ShardmeshQueueFull")
    observed.until_clear("ShardmeshQueueFull")


def test_a_load_that_fails(observed: ObservedMesh, tmp_path: Path) -> None:
    """ShardmeshLoadFailed: a weight of the model is no number, which shows when it is cut."""
    model = build(layers=1)
    norm = model.floats("model.norm.weight").copy()
    norm[7] = math.nan
    model.tensors["model.norm.weight"] = narrowed(norm, model.config["dtype"])
    failed = observed.mesh.try_cli("load", str(save(model, tmp_path / "damaged")))
    assert failed.code != 0
    observed.until_fires("ShardmeshLoadFailed")
    observed.until_clear("ShardmeshLoadFailed")


def test_a_certificate_that_nobody_renews(observed: ObservedMesh) -> None:
    """ShardmeshCertificateExpiring: the coordinator's disk is read-only, so it promises no new one to anybody."""
    observed.mesh.stop("kitchen")
    observed.mesh.stop(DESK)
    age_certificate(observed.state, observed.mesh.data("kitchen"), days_left=18)
    observed.mesh.start_coordinator()
    with observed.unwritable_state():
        observed.mesh.start_node("kitchen")
        observed.until_fires("ShardmeshCertificateExpiring", node="kitchen")
    observed.until_clear("ShardmeshCertificateExpiring")
    observed.mesh.wait_until_alive()


def test_state_that_was_damaged(observed: ObservedMesh) -> None:
    """ShardmeshStateDamaged: a node's identity is no identity any more, and its copy is; the next start mends it."""
    observed.mesh.stop("kitchen")
    (observed.mesh.data("kitchen") / "identity" / "identity.pem").write_bytes(b"damaged")
    observed.mesh.start_node("kitchen")
    observed.until_fires("ShardmeshStateDamaged", node="kitchen")
    observed.restart("kitchen")
    observed.until_clear("ShardmeshStateDamaged")


@pytest.mark.parametrize(("host", "port", "labels"), [
    (DESK, PORT, {"port": "members"}), ("kitchen", NODE_PORT, {"port": "calls", "node": "kitchen"})
])  # fmt: skip
def test_a_port_that_is_crowded(observed: ObservedMesh, host: str, port: int, labels: dict[str, str]) -> None:
    """ShardmeshDoorCrowded: a device opens connections without an end, at the coordinator and at a node."""
    with observed.crowded(host, port, by="attic"):
        observed.until_fires("ShardmeshDoorCrowded", **labels)
    observed.until_clear("ShardmeshDoorCrowded")
    observed.mesh.wait_until_alive()


def test_an_observer_whose_certificate_ends_soon(observed: ObservedMesh) -> None:
    """ShardmeshObserverCertificateExpiring: somebody is let in for a week, and removed."""
    laptop = observed.observer.with_name("laptop")
    observed.mesh.cli("mesh", "invite", "--observer", "laptop", "--valid-days", "7", "--out", str(laptop))
    observed.until_fires("ShardmeshObserverCertificateExpiring", observer="laptop")
    assert not observed.prometheus.firing("ShardmeshObserverCertificateExpiring", observer="prometheus")
    observed.mesh.cli("mesh", "remove", "laptop")
    observed.until_clear("ShardmeshObserverCertificateExpiring")


@pytest.mark.skipif(FAKETIME is None, reason="Debian's package faketime is not here, so no clock is wrong")
def test_a_clock_that_is_wrong(observed: ObservedMesh) -> None:
    """ShardmeshClockSkew: a node believes that it is two minutes later."""
    observed.restart(
        "attic", environment=[f"LD_PRELOAD={FAKETIME}", "FAKETIME=+120s", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
    )
    observed.until_fires("ShardmeshClockSkew", node="attic")
    observed.restart("attic")
    observed.until_clear("ShardmeshClockSkew")


def test_an_authority_that_ends_soon(observed: ObservedMesh) -> None:
    """ShardmeshAuthorityExpiring: the same coordinator with a mesh that was made ten years ago, less a month."""
    kept, old = observed.state.with_name("kept"), observed.state
    observed.mesh.stop(DESK)
    old.rename(kept)
    make_old_authority(old, days_left=60)
    try:
        observed.mesh.start_coordinator()
        observed.invite_observer()
        observed.until_fires("ShardmeshAuthorityExpiring", mesh="home")
    finally:
        observed.mesh.stop(DESK)
        shutil.rmtree(old)
        kept.rename(old)
        observed.mesh.start_coordinator()
        observed.invite_observer()
    observed.until_clear("ShardmeshAuthorityExpiring")
    observed.mesh.wait_until_alive()


def _group_of(observed: ObservedMesh, name: str) -> Path:
    """Return the directory of the memory group that a node's host has."""
    (line,) = [
        line for line in Path(f"/proc/{observed.mesh.running[name].process.pid}/cgroup").read_text().splitlines()
        if line.split(":")[1] == "memory"
    ]  # fmt: skip
    return GROUPS / line.split(":")[2].lstrip(os.sep)
