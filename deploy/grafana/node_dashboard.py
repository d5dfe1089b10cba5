"""What does the page of one device show: its part of each token, its memory, its disk, its messages?

Covers: the panels of one node. Does not cover: the mesh (mesh_dashboard.py), models (model_dashboard.py).
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.frame import Panels, framed
from deploy.grafana.panels import CAUSE_COLOURS, Query, Steps, lines, number, ports
from deploy.grafana.queries import MESH, NODE, used_by
from deploy.grafana.texts import texts_of

TEXTS = texts_of("node")


def node_dashboard() -> dashboard.Dashboard:
    """Return the page of one node."""
    described = "One device: its part of each token, its memory, its disk, its messages."
    return framed("node", "shardmesh: node", described, sections=SECTIONS, variable="node")


def _now() -> Panels:
    yield number(
        TEXTS["Heard"], f"max({NODE.at_once('shardmesh_coordinator_node_up')})", "bool_yes_no", steps=Steps(1, 0.5)
    )
    yield number(
        TEXTS["Last heard"],
        f"max({NODE.at_once('shardmesh_coordinator_node_heartbeat_age_seconds')})",
        "s",
        steps=Steps(10, 30),
    )
    yield number(TEXTS["Up for"], f"time() - max({NODE.at_once('process_start_time_seconds')})", "s")
    yield number(
        TEXTS["Certificate ends in"],
        f"max({NODE.at_once('shardmesh_coordinator_node_certificate_expiry_timestamp_seconds')}) - time()",
        "s",
        steps=Steps(7 * 86400, 2 * 86400),
    )
    yield number(
        TEXTS["Disk free"], f"max({NODE.at_once('shardmesh_node_disk_free_bytes')})", "decbytes", steps=Steps(10e9, 2e9)
    )
    yield number(TEXTS["Clock skew"], f"max({NODE.at_once('shardmesh_coordinator_node_clock_skew_seconds')})", "s")


def _part() -> Panels:
    yield lines(
        TEXTS["What sweeps wait for here"],
        [Query(NODE.rate("shardmesh_coordinator_critical_path_seconds_total", by="cause"), "{{cause}}")],
        "percentunit",
        width=12,
        stacked=True,
        colours=CAUSE_COLOURS,
    )
    last = NODE.rate("shardmesh_coordinator_last_rounds_total")
    longest = NODE.rate("shardmesh_coordinator_slowest_rounds_total")
    of_all = MESH.rate("shardmesh_coordinator_last_rounds_total")
    yield lines(
        TEXTS["How often it is last"],
        [
            Query(f"{last} / {of_all}", "came last"),
            Query(f"{longest} / {of_all}", "worked longest"),
            Query(f"1 / max({MESH.at_once('shardmesh_coordinator_model_nodes')})", "fair share"),
        ],
        "percentunit",
        width=6,
        most=1,
    )
    yield lines(
        TEXTS["Round trip"],
        [
            Query(NODE.quantile(0.5, "shardmesh_coordinator_round_trip_seconds"), "median"),
            Query(NODE.quantile(0.95, "shardmesh_coordinator_round_trip_seconds"), "95 of 100"),
            Query(f"max({NODE.at_once('shardmesh_coordinator_link_echo_seconds')})", "link alone"),
        ],
        "s",
        width=6,
    )


def _work() -> Panels:
    yield lines(
        TEXTS["Where the node's time goes"],
        [
            Query(NODE.rate("shardmesh_node_compute_seconds_sum"), "computing"),
            Query(NODE.rate("shardmesh_node_tile_wait_seconds_total"), "disk"),
            Query(NODE.rate("shardmesh_node_queue_seconds_total"), "queue"),
            Query(NODE.rate("shardmesh_node_core_wait_seconds_total"), "core_wait"),
        ],
        "percentunit",
        width=12,
        stacked=True,
        colours={"computing": CAUSE_COLOURS["processor"], **CAUSE_COLOURS},
    )
    yield lines(
        TEXTS["Kernels of a block"],
        [Query(NODE.mean("shardmesh_node_compute_seconds", by="kind"), "{{kind}}")],
        "s",
        width=6,
    )
    yield lines(TEXTS["Sweeps"], [Query(NODE.rate("shardmesh_node_sweeps_total"), "sweeps")], "ops", width=6)


def _at_most(name: str) -> str:
    return f"max({NODE.at_once(f'shardmesh_node_{name}')})"


def _memory() -> Panels:
    parts = " - ".join(_at_most(name) for name in ("window_bytes", "resident_bytes", "kv_bytes"))
    yield lines(
        TEXTS["What memory is made of"],
        [
            Query(_at_most("window_bytes"), "window"),
            Query(_at_most("resident_bytes"), "resident weights"),
            Query(_at_most("kv_bytes"), "keys and values"),
            Query(f"clamp_min(max({used_by(NODE)}) - {parts}, 0)", "the rest"),
            Query(f"{_at_most('memory_budget_bytes')} > 0", "budget"),
        ],
        "decbytes",
        width=12,
        stacked=True,
        colours={
            "window": CAUSE_COLOURS["disk"],
            "resident weights": CAUSE_COLOURS["processor"],
            "keys and values": CAUSE_COLOURS["link"],
            "the rest": CAUSE_COLOURS["unknown"],
        },
    )


def _limits() -> Panels:
    yield lines(
        TEXTS["Keys and values"],
        [Query(_at_most("kv_bytes"), "reserved"), Query(_at_most("kv_budget_bytes"), "limit")],
        "decbytes",
        width=6,
    )
    yield lines(
        TEXTS["Control group"],
        [
            Query(_at_most("group_memory_bytes"), "all"),
            Query(_at_most("group_page_cache_bytes"), "page cache"),
            Query(f"{_at_most('group_memory_limit_bytes')} > 0", "limit"),
        ],
        "decbytes",
        width=6,
    )


def _disk() -> Panels:
    read, seconds = (NODE.rate(f"shardmesh_node_read_{part}_total") for part in ("bytes", "seconds"))
    cached = NODE.rate("shardmesh_node_cached_read_bytes_total")
    yield lines(
        TEXTS["Weights read"], [Query(read, "read"), Query(cached, "by kernels, from the page cache")], "Bps", width=6
    )
    yield lines(TEXTS["Speed of a read"], [Query(f"{read} / {seconds}", "one read")], "Bps", width=6)
    yield lines(
        TEXTS["Reads in flight"],
        [Query(f"max({NODE.at_once('shardmesh_node_reads_in_flight')})", "in flight")],
        "short",
        width=4,
    )
    yield lines(
        TEXTS["Waiting for weights"],
        [Query(NODE.rate("shardmesh_node_tile_wait_seconds_total"), "waiting")],
        "percentunit",
        width=4,
        most=1,
    )
    yield lines(
        TEXTS["Weights in packs"],
        [Query(_at_most("packs_bytes"), "packs"), Query(_at_most("kept_bytes"), "of it kept for other plans")],
        "decbytes",
        width=4,
    )


def _messages() -> Panels:
    yield lines(TEXTS["Rounds"], [Query(NODE.rate("shardmesh_node_rounds_total"), "rounds")], "ops", width=6)
    yield lines(
        TEXTS["Rounds go over"],
        [Query(f"max by (transport) ({NODE.at_once('shardmesh_coordinator_round_transport')})", "{{transport}}")],
        "short",
        width=6,
        most=1,
    )
    yield lines(
        TEXTS["Bytes"],
        [
            Query(NODE.rate("shardmesh_node_round_received_bytes_total"), "received"),
            Query(NODE.rate("shardmesh_node_round_sent_bytes_total"), "sent"),
        ],
        "Bps",
        width=6,
    )
    yield lines(
        TEXTS["Failures"],
        [
            Query(NODE.rate("shardmesh_node_failures_total", by="reason"), "{{reason}}"),
            Query(NODE.rate("shardmesh_coordinator_node_failures_total", by="reason"), "coordinator: {{reason}}"),
        ],
        "ops",
        width=6,
    )
    yield from ports("node", NODE, TEXTS["Sent away"], TEXTS["Connections"])


SECTIONS = (
    ("Now", _now),
    ("Its part of each token", lambda: (*_part(), *_work())),
    ("Memory", lambda: (*_memory(), *_limits())),
    ("Disk", _disk),
    ("Messages", _messages),
)
