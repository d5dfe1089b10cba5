"""Has every expression of dashboards, rules and alerts data on a mesh under load, and does load move what it should?

Covers: each expression as a real Prometheus evaluates it; targets as nodes join and leave.
Does not cover: names that nothing exports (tests/unit/test_series_names.py), alerts that fire (test_alerts.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import grpc
import pytest

from tests.support.mesh_of_hosts import DESK, NODE_PORT, PORT
from tests.support.observed_mesh import NODES, ObservedMesh
from tests.support.owner_asking import OwnerAsking
from tests.support.series_names import expressions_in_dashboard, expressions_in_rules
from tests.support.source_files import REPOSITORY
from tests.support.waiting import wait_until

DASHBOARDS = sorted((REPOSITORY / "deploy" / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((REPOSITORY / "deploy" / "prometheus" / "rules").glob("*.rules.yml"))
VARIABLES = {"mesh": "home", "node": "NODE", "model": "small", "__rate_interval": "1m", "__range": "5m",
             "__interval": "5s", "datasource": "prometheus"}  # fmt: skip
MOVED_BY_LOAD = {
    "shardmesh_prompt_tokens_total", "shardmesh_generation_tokens_total", "shardmesh_request_success_total",
    "shardmesh_time_to_first_token_seconds_count", "shardmesh_inter_token_latency_seconds_count",
    "shardmesh_request_queue_time_seconds_count", "shardmesh_request_prefill_time_seconds_count",
    "shardmesh_request_decode_time_seconds_count", "shardmesh_e2e_request_latency_seconds_count",
    "shardmesh_coordinator_head_seconds_count", "shardmesh_coordinator_sweep_seconds_count",
}  # fmt: skip
MOVED_WHERE_WEIGHTS_STREAM = {
    "shardmesh_node_read_bytes_total", "shardmesh_node_read_seconds_total", "shardmesh_node_tile_wait_seconds_total",
}  # fmt: skip
MOVED_BY_LOAD_ON_EACH_NODE = {
    "shardmesh_coordinator_round_trip_seconds_count", "shardmesh_coordinator_round_sent_bytes_total",
    "shardmesh_coordinator_round_received_bytes_total", "shardmesh_node_compute_seconds_count",
    "shardmesh_node_sweeps_total", "shardmesh_node_rounds_total", "shardmesh_node_round_received_bytes_total",
    "shardmesh_node_round_sent_bytes_total",
}  # fmt: skip
HIGH_UNDER_LOAD = {
    "shardmesh_num_requests_running", "shardmesh_kv_cache_usage_ratio", "shardmesh_coordinator_sequences",
    "sum(shardmesh_node_kv_bytes)", "sum(shardmesh_node_sequences)",
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(observed: ObservedMesh) -> Iterator[ObservedMesh]:
    """Return the mesh under load, after a request that failed, a lost node, one whose disk failed, crowds at ports."""
    with pytest.raises(grpc.RpcError):
        OwnerAsking(observed.state).answer("hello", length=1, model="no-such-model")
    assert observed.mesh.try_cli("load", str(observed.home / "no-such-model")).code
    with observed.asked():
        observed.until("rate(shardmesh_generation_tokens_total[10s]) > 0")
        observed.mesh.kill("kitchen")
        observed.until('shardmesh_coordinator_node_failures_total{node="kitchen"} > 0')
        observed.mesh.start_node("kitchen")
        observed.until('rate(shardmesh_node_rounds_total{node="kitchen"}[10s]) > 0')
        with observed.shortened_slice("kitchen"):
            observed.until('shardmesh_node_failures_total{node="kitchen"} > 0')
        with observed.crowded(DESK, PORT, by="attic"), observed.crowded("kitchen", NODE_PORT, by="attic"):
            observed.until("rate(shardmesh_coordinator_refused_connections_total[10s]) > 0")
            observed.until("rate(shardmesh_node_refused_connections_total[10s]) > 0")
        observed.until("count_over_time(mesh:shardmesh_generation_tokens:rate1m[30s]) > 25")
        observed.until("rate(shardmesh_generation_tokens_total[10s]) > 0")
        yield observed


def has_data(observed: ObservedMesh, expression: str) -> bool:
    """Tell whether an expression gives a number now."""
    return any(not math.isnan(sample.value) for sample in observed.prometheus.query(expression))


def substituted(expression: str) -> str:
    """Return an expression of a dashboard as Grafana asks it for one of the nodes; either has to have data.

    One of them has a budget and reads nothing, the other one streams.
    """
    asked = re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda found: VARIABLES[found[1]], expression)
    return " or ".join(f"({asked.replace('NODE', node)})" for node in NODES) if "NODE" in asked else asked


def without(observed: ObservedMesh, expressions: list[tuple[str, str]]) -> list[str]:
    """Return the places whose expressions give nothing, though it was waited for."""
    missing = dict(expressions)

    def none_is_missing() -> bool:
        for place in [place for place, expression in missing.items() if has_data(observed, expression)]:
            del missing[place]
        return not missing

    try:
        wait_until(none_is_missing, limit_seconds=20, what="data for all")
    except AssertionError:
        return [f"{place}: {expression}" for place, expression in missing.items()]
    return []


def test_every_panel_has_data(loaded: ObservedMesh) -> None:
    """No panel of a dashboard stays empty on a mesh that works."""
    asked = [
        (query.place, substituted(query.expression)) for path in DASHBOARDS for query in expressions_in_dashboard(path)
    ]
    assert asked
    assert without(loaded, asked) == []


def test_every_recorded_series_has_data(loaded: ObservedMesh) -> None:
    """What is computed ahead is there for those who ask."""
    recorded = [query.place.split(": ")[1] for path in RULES for query in expressions_in_rules(path)]
    assert recorded
    assert without(loaded, [(name, name) for name in recorded]) == []


def test_prometheus_finds_no_fault_with_any_rule(loaded: ObservedMesh) -> None:
    """Each was evaluated, none with an error."""
    rules = loaded.prometheus.rules()
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []


def test_load_moves_what_it_should(loaded: ObservedMesh) -> None:
    """Counters of requests and of both nodes grow while people ask; gauges say that they do."""
    each = {f'{name}{{node="{node}"}}' for name in MOVED_BY_LOAD_ON_EACH_NODE for node in NODES}
    each |= {f'{name}{{node="kitchen"}}' for name in MOVED_WHERE_WEIGHTS_STREAM}
    waiting = [(name, f"increase({name}[20s]) > 0") for name in sorted(MOVED_BY_LOAD | each)]
    waiting += [(name, f"max_over_time(({name})[20s:1s]) > 0") for name in sorted(HIGH_UNDER_LOAD)]
    path = "shardmesh_coordinator_critical_path_seconds_total"
    waiting.append((path, f"sum(increase({path}[20s])) > 0"))
    assert without(loaded, waiting) == []


def test_a_node_that_joins_is_scraped_and_one_that_is_removed_is_not(observed: ObservedMesh) -> None:
    """Nobody edits a file: joining and removing is all that is done."""
    mesh, data = observed.mesh, observed.home / "shed"
    token = mesh.cli("mesh", "invite").out.split()[-1]
    inside, address = mesh.hosts.inside("attic"), mesh.hosts.address("attic")
    joined = mesh.shell.run(
        "shardnode", "join", token, "--name", "shed", "--data-dir", str(data), "--listen", f"{address}:50052",
        "--metrics-listen", "0.0.0.0:9401", "--no-measure", inside=inside,
    )  # fmt: skip
    assert joined.code == 0, joined.err
    shed = mesh.shell.start("shardnode", "--config", str(data / "shardnode.toml"), inside=inside)
    observed.until(f'up{{job="shardmesh-node", mesh="home", node="shed", instance="{address}:9401"}} == 1')
    mesh.cli("mesh", "remove", "shed", "--yes")
    wait_until(
        lambda: "shed" not in {target["labels"].get("node") for target in observed.prometheus.targets()},
        limit_seconds=20, what="shed is no target any more",
    )  # fmt: skip
    shed.process.terminate()
    shed.finish()


def test_http_discovery_gives_what_the_file_says(observed: ObservedMesh) -> None:
    """For a Prometheus elsewhere, by the same door: an observer gets it and a stranger does not."""
    listed = (observed.state / "prometheus" / "targets.json").read_bytes()
    assert observed.page("/sd") == (200, listed)
    assert observed.page("/sd", as_observer=False)[0] != 200
