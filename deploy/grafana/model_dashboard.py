"""What does the page of one model show: who asks it, how fast it answers, which nodes it lies on?

Covers: the panels of one model. Does not cover: the mesh (mesh_dashboard.py), devices (node_dashboard.py).
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, table

from deploy.grafana.frame import Panels, framed
from deploy.grafana.panels import Column, Query, Steps, lines, number, quantiles, rows
from deploy.grafana.queries import MESH, MODEL, used_by
from deploy.grafana.texts import texts_of

TEXTS = texts_of("model")


def model_dashboard() -> dashboard.Dashboard:
    """Return the page of one model."""
    described = "One model: who asks it, how fast it answers, which nodes it lies on."
    return framed("model", "shardmesh: model", described, sections=SECTIONS, variable="model")


def _now() -> Panels:
    yield number(
        TEXTS["Loaded"],
        f"max({MODEL.at_once('shardmesh_coordinator_model_loaded')})",
        "bool_yes_no",
        steps=Steps(1, 0.5),
    )
    yield number(TEXTS["Nodes"], f"max({MODEL.at_once('shardmesh_coordinator_model_nodes')})", "short")
    yield number(
        TEXTS["Tokens per second"], MODEL.rate("shardmesh_generation_tokens_total"), "suffix:tokens/s", decimals=1
    )
    yield number(TEXTS["Whole requests, 95 of 100"], MODEL.quantile(0.95, "shardmesh_e2e_request_latency_seconds"), "s")
    yield number(
        TEXTS["Room for conversations"],
        f"max({MODEL.at_once('shardmesh_kv_cache_usage_ratio')})",
        "percentunit",
        steps=Steps(0.8, 0.95),
    )
    failed, ended = MODEL.during("shardmesh_request_failures_total"), MODEL.during("shardmesh_request_success_total")
    yield number(TEXTS["Share that failed"], f"{failed} / ({failed} + {ended})", "percentunit", steps=Steps(0.01, 0.05))


def _requests() -> Panels:
    yield lines(
        TEXTS["Requests"],
        [
            Query(MODEL.total("shardmesh_num_requests_running"), "answered"),
            Query(MODEL.total("shardmesh_num_requests_waiting"), "waiting"),
        ],
        "short",
    )
    yield lines(
        TEXTS["How requests end"],
        [
            Query(MODEL.rate("shardmesh_request_success_total", by="finished_reason"), "{{finished_reason}}"),
            Query(f"{MODEL.rate('shardmesh_request_failures_total', by='reason')} > 0", "{{reason}}"),
        ],
        "reqps",
    )
    ended = MODEL.rate("shardmesh_e2e_request_latency_seconds_count")
    yield lines(
        TEXTS["Tokens of a request"],
        [
            Query(f"{MODEL.rate('shardmesh_prompt_tokens_total')} / {ended}", "prompt"),
            Query(f"{MODEL.rate('shardmesh_generation_tokens_total')} / {ended}", "answer"),
        ],
        "suffix:tokens",
    )


def _times() -> Panels:
    yield quantiles(TEXTS["First token"], MODEL, "shardmesh_time_to_first_token_seconds")
    yield quantiles(TEXTS["Between tokens"], MODEL, "shardmesh_inter_token_latency_seconds")
    yield quantiles(TEXTS["Whole requests"], MODEL, "shardmesh_e2e_request_latency_seconds")
    yield quantiles(TEXTS["In the queue"], MODEL, "shardmesh_request_queue_time_seconds")
    yield quantiles(TEXTS["Reading the prompt"], MODEL, "shardmesh_request_prefill_time_seconds")
    yield quantiles(TEXTS["Answering"], MODEL, "shardmesh_request_decode_time_seconds")


def _nodes() -> Panels:
    yield _table()
    yield lines(
        TEXTS["Weights by encoding"],
        [Query(f"max by (encoding) ({MODEL.at_once('shardmesh_coordinator_model_weight_bytes')})", "{{encoding}}")],
        "decbytes",
        width=24,
        stacked=True,
    )
    for title, origin in (("Sent by loads", "sent"), ("Found by loads", "there")):
        brought = MODEL.during("shardmesh_coordinator_slice_bytes_total", matching=f'origin="{origin}"')
        yield number(TEXTS[title], brought, "decbytes", width=12)


def _table() -> table.Panel:
    serves = f"(max by (node) ({MODEL.at_once('shardmesh_coordinator_node_serves')}) == 1)"

    def of_its_nodes(expression: str) -> str:
        return f"{expression} and on (node) {serves}"

    def by_node(name: str) -> str:
        return of_its_nodes(f"max by (node) ({MESH.at_once(name)})")

    round_trip = of_its_nodes(MESH.quantile(0.5, "shardmesh_coordinator_round_trip_seconds", by="node"))
    return rows(
        TEXTS["Its nodes"],
        "node",
        [
            Column("heard", by_node("shardmesh_coordinator_node_up"), "short", {0: "lost", 1: "yes"}, Steps(1, 0.5)),
            Column("slow", by_node("shardmesh_coordinator_node_slow"), "short", {0: "no", 1: "slow"}, Steps(1, 2)),
            Column("round trip", round_trip, "s"),
            Column("memory", of_its_nodes(f"max by (node) ({used_by(MESH)})"), "decbytes"),
            Column("resident weights", by_node("shardmesh_node_resident_bytes"), "decbytes"),
            Column("weights read", of_its_nodes(MESH.rate("shardmesh_node_read_bytes_total", by="node")), "Bps"),
        ],
    )


SECTIONS = (("Now", _now), ("Requests", _requests), ("How long it takes", _times), ("Where it lies", _nodes))
