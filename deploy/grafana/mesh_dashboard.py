"""What does the first page show, the one that is open on the wall: how fast, how full, who is slow and why?

Covers: the panels of a mesh. Does not cover: one device (node_dashboard.py), one model (model_dashboard.py).
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, table

from deploy.grafana.frame import Panels, framed
from deploy.grafana.panels import (
    CAUSE_COLOURS,
    OF_A_NODE,
    Column,
    Query,
    Steps,
    bars,
    lines,
    note,
    number,
    ports,
    quantiles,
    rows,
)
from deploy.grafana.queries import MESH, used_by
from deploy.grafana.texts import texts_of

TEXTS = texts_of("mesh")
DAY_SECONDS = 86400
TRANSPORTS = {0: "no session", 1: "socket", 2: "frames", 3: "gRPC"}


def mesh_dashboard() -> dashboard.Dashboard:
    """Return the overview of one mesh."""
    described = "One mesh at a glance: how fast, how full, who is slow and why."
    return framed("mesh", "shardmesh: mesh", described, sections=SECTIONS)


def _now() -> Panels:
    yield number(
        TEXTS["Tokens per second"], MESH.rate("shardmesh_generation_tokens_total"), "suffix:tokens/s", decimals=1
    )
    yield number(
        TEXTS["First token, 95 of 100"],
        MESH.quantile(0.95, "shardmesh_time_to_first_token_seconds"),
        "s",
        steps=Steps(10, 60),
    )
    yield number(
        TEXTS["Between tokens, median"],
        MESH.quantile(0.5, "shardmesh_inter_token_latency_seconds"),
        "s",
        steps=Steps(0.5, 5),
    )
    yield number(TEXTS["Requests that wait"], MESH.total("shardmesh_num_requests_waiting"), "short", steps=Steps(1, 10))
    yield number(
        TEXTS["Requests that failed"],
        MESH.during("shardmesh_request_failures_total"),
        "short",
        steps=Steps(1, 10),
        decimals=0,
    )
    yield number(
        TEXTS["Nodes that are heard"],
        f"avg({MESH.at_once('shardmesh_coordinator_node_up')})",
        "percentunit",
        steps=Steps(1, 0.99),
    )


def _answers() -> Panels:
    yield lines(
        TEXTS["Tokens"],
        [
            Query(MESH.rate("shardmesh_generation_tokens_total"), "answers"),
            Query(MESH.rate("shardmesh_prompt_tokens_total"), "prompts"),
        ],
        "suffix:tokens/s",
    )
    yield quantiles(TEXTS["First token"], MESH, "shardmesh_time_to_first_token_seconds")
    yield quantiles(TEXTS["Between tokens"], MESH, "shardmesh_inter_token_latency_seconds")
    yield lines(
        TEXTS["Requests"],
        [
            Query(MESH.total("shardmesh_num_requests_running"), "answered"),
            Query(MESH.total("shardmesh_num_requests_waiting"), "waiting"),
            Query(MESH.total("shardmesh_requests_limit"), "limit"),
        ],
        "short",
    )
    yield lines(
        TEXTS["A request's time"],
        [
            Query(MESH.mean("shardmesh_request_queue_time_seconds"), "queue"),
            Query(MESH.mean("shardmesh_request_prefill_time_seconds"), "prompt"),
            Query(MESH.mean("shardmesh_request_decode_time_seconds"), "answer"),
        ],
        "s",
        stacked=True,
    )
    yield lines(
        TEXTS["How requests end"],
        [
            Query(MESH.rate("shardmesh_request_success_total", by="finished_reason"), "{{finished_reason}}"),
            Query(f"{MESH.rate('shardmesh_request_failures_total', by='reason')} > 0", "{{reason}}"),
        ],
        "reqps",
    )


def _speed() -> Panels:
    sweeps = f"scalar({MESH.rate('shardmesh_coordinator_sweep_seconds_count')})"
    by_node = MESH.rate("shardmesh_coordinator_critical_path_seconds_total", by="node")
    causes = MESH.rate("shardmesh_coordinator_critical_path_seconds_total", by="cause")
    yield lines(
        TEXTS["What a sweep waits for"],
        [Query(f"{causes} / {sweeps}", "{{cause}}")],
        "s",
        width=12,
        stacked=True,
        colours=CAUSE_COLOURS,
    )
    yield lines(
        TEXTS["Which node a second goes to"],
        [Query(f'label_replace({by_node}, "node", "coordinator", "node", "")', OF_A_NODE)],
        "percentunit",
        width=12,
        stacked=True,
    )
    last = MESH.rate("shardmesh_coordinator_last_rounds_total", by="node")
    of_all = f"scalar({MESH.rate('shardmesh_coordinator_last_rounds_total')})"
    yield lines(
        TEXTS["Who is last"],
        [
            Query(f"{last} / {of_all}", OF_A_NODE),
            Query(f"1 / max({MESH.at_once('shardmesh_coordinator_model_nodes')})", "fair share"),
        ],
        "percentunit",
        most=1,
    )
    yield lines(
        TEXTS["Round trip, median"],
        [Query(MESH.quantile(0.5, "shardmesh_coordinator_round_trip_seconds", by="node"), OF_A_NODE)],
        "s",
    )
    yield lines(
        TEXTS["Links"],
        [Query(f"max by (node) ({MESH.at_once('shardmesh_coordinator_link_echo_seconds')})", OF_A_NODE)],
        "s",
    )


def _memory() -> Panels:
    used = f"max by (node) ({used_by(MESH)})"
    budget = f"(max by (node) ({MESH.at_once('shardmesh_node_memory_budget_bytes')}) > 0)"
    yield bars(
        TEXTS["Memory of the budget"],
        Query(f"{used} / {budget}", OF_A_NODE),
        "percentunit",
        steps=Steps(0.95, 1),
        most=1,
        width=6,
    )
    yield lines(
        TEXTS["Memory against budget"],
        [
            Query(used, OF_A_NODE),
            Query(budget, "{{node}}: budget"),
            Query(f"max({MESH.at_once('shardmesh_coordinator_pss_bytes')})", "coordinator"),
        ],
        "decbytes",
        width=10,
    )
    yield lines(
        TEXTS["Room for conversations"],
        [Query(f"max by (model) ({MESH.at_once('shardmesh_kv_cache_usage_ratio')})", "{{model}}")],
        "percentunit",
        most=1,
    )


def _disks_and_links() -> Panels:
    yield lines(
        TEXTS["Weights read"], [Query(MESH.rate("shardmesh_node_read_bytes_total", by="node"), OF_A_NODE)], "Bps"
    )
    yield lines(
        TEXTS["Waiting for weights"],
        [Query(MESH.rate("shardmesh_node_tile_wait_seconds_total", by="node"), OF_A_NODE)],
        "percentunit",
        most=1,
    )
    yield lines(
        TEXTS["Bytes over the links"],
        [
            Query(MESH.rate("shardmesh_coordinator_round_sent_bytes_total", by="node"), "to {{node}}"),
            Query(MESH.rate("shardmesh_coordinator_round_received_bytes_total", by="node"), "from {{node}}"),
        ],
        "Bps",
    )


def _table() -> table.Panel:
    def by_node(name: str) -> str:
        return f"max by (node) ({MESH.at_once(f'shardmesh_coordinator_{name}')})"

    ends = by_node("node_certificate_expiry_timestamp_seconds")
    free = f"max by (node) ({MESH.at_once('shardmesh_node_disk_free_bytes')})"
    damaged = f"max by (node) ({MESH.at_once('shardmesh_node_damaged_state_files')})"
    failures = MESH.during("shardmesh_coordinator_node_failures_total", by="node")
    return rows(
        TEXTS["Nodes"],
        "node",
        [
            Column("heard", by_node("node_up"), "short", {0: "lost", 1: "yes"}, Steps(1, 0.5)),
            Column("last heard", by_node("node_heartbeat_age_seconds"), "s", steps=Steps(10, 30)),
            Column("rounds over", _transport(), "short", TRANSPORTS, Steps(3, 4)),
            Column("slow", by_node("node_slow"), "short", {0: "no", 1: "slow"}, Steps(1, 2)),
            Column("clock skew", by_node("node_clock_skew_seconds"), "s"),
            Column("certificate ends in", f"{ends} - time()", "s", steps=Steps(7 * DAY_SECONDS, 2 * DAY_SECONDS)),
            Column("state damaged", damaged, "short", steps=Steps(1, 2)),
            Column("disk free", free, "decbytes", steps=Steps(10e9, 2e9)),
            Column("failures", failures, "short", steps=Steps(1, 10)),
        ],
    )


def _transport() -> str:
    """Return a number for each node that says what carries its rounds."""
    name = "shardmesh_coordinator_round_transport"
    over = {"direct": 1, "frames": 2, "grpc": 3}
    matching = {transport: f'transport="{transport}"' for transport in over}
    return " + ".join(f"{over[one]} * max by (node) ({MESH.at_once(name, matching[one])})" for one in over)


def _observers() -> table.Panel:
    ends = f"max by (observer) ({MESH.at_once('shardmesh_coordinator_observer_certificate_expiry_timestamp_seconds')})"
    column = Column("certificate ends in", f"{ends} - time()", "s", steps=Steps(14 * DAY_SECONDS, 2 * DAY_SECONDS))
    return rows(TEXTS["Observers"], "observer", [column], height=4)


def _doors() -> Panels:
    yield from ports("coordinator", MESH, TEXTS["Sent away"], TEXTS["Connections"])


SECTIONS = (
    ("Now", lambda: (note(TEXTS["How to read this page"]), *_now())),
    ("Answers", _answers),
    ("Why it is as fast as it is", _speed),
    (
        "Devices",
        lambda: (
            *_memory(),
            *_disks_and_links(),
            *ports("coordinator", MESH, TEXTS["Sent away"], TEXTS["Connections"]),
            _table(),
            _observers(),
        ),
    ),
)
