"""Are the metrics pages of node and coordinator what dashboards were built on, and does a real run move every series?

Covers: names, types, help and labels of every series (golden pages beside this file), and that none of them is dead.
Does not cover: dashboards and alerts (deploy/).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from common.errors import ProtocolError, all_error_classes
from common.program.door_series import CALL_REASONS
from common.program.reasons import REASONS
from common.program.version import program_version
from common.weights.model_encodings import ALL_ENCODINGS
from common.wire.rpc import channel_options
from coordinator.engine.sequence import LENGTH
from coordinator.models.model_series import SENT, THERE
from coordinator.ranks.critical_path import CAUSES
from coordinator.ranks.transports.carriers import CARRIERS
from coordinator.ranks.transports.grpc_stream import GrpcShardClient
from shardnode.run import RunningNode
from tests.support.listening_nodes import ask
from tests.support.metered_run import NODES, OBSERVER, Pages, metered_run, scraped
from tests.support.metrics_pages import described, families, label_values, moved, total
from tests.support.session_messages import open_sequence
from tests.support.sliced_models import SlicedModel

HERE = Path(__file__).resolve().parent
UNITS_THAT_ARE_NOT_BASE = re.compile(r"_(ms|milliseconds|us|nanoseconds|minutes|hours|kb|kib|mb|mib|gb|percent)(_|$)")
ENTRY = re.compile(r"^shardmesh_[a-z0-9_]+$")
MOVED_ELSEWHERE = {
    "shardmesh_num_requests_waiting": "tests/unit/test_request_series.py",
    "shardmesh_coordinator_round_transport_fallback": "tests/unit/test_round_metrics.py",
    "shardmesh_coordinator_node_slow": "tests/unit/test_slow_nodes.py",
    "shardmesh_coordinator_reads_in_flight": "tests/unit/test_weight_series.py",
    "shardmesh_node_reads_in_flight": "tests/unit/test_weight_series.py",
    **{f"shardmesh_{program}_{name}": "tests/unit/test_process_series.py"
       for program in ("coordinator", "node")
       for name in ("memory_budget_bytes", "group_memory_bytes", "group_page_cache_bytes", "group_memory_limit_bytes")},
    **{f"shardmesh_{program}_{name}": "tests/attacks/test_crowds.py"
       for program in ("coordinator", "node") for name in ("refused_connections", "refused_calls", "connections")},
    "shardmesh_node_queue_seconds": "tests/contract/test_round_waits.py",
    **{f"shardmesh_{program}_damaged_state_files": "tests/unit/test_state_files.py"
       for program in ("coordinator", "node")},
    "shardmesh_node_packs_bytes": "tests/contract/test_kept_tiles.py",
    "shardmesh_node_kept_bytes": "tests/contract/test_kept_tiles.py",
    "shardmesh_node_core_wait_seconds": "tests/unit/test_core_wait.py",
    "shardmesh_node_coordinator_heard_timestamp_seconds": "tests/contract/test_series_of_a_mesh.py",
    "shardmesh_node_certificate_expiry_timestamp_seconds": "tests/contract/test_series_of_a_mesh.py",
}  # fmt: skip
"""Series of what this run has not, each with the test that moves it."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """Return the pages of a run."""
    return metered_run(tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("s"))


@pytest.mark.parametrize("part", ["node", "coordinator"])
def test_the_page_is_the_golden_one(pages: Pages, part: str) -> None:
    """A changed name, type, label or help breaks somebody's dashboard: change the golden page with intent."""
    page = pages.nodes[0] if part == "node" else pages.coordinator
    golden = (HERE / f"metrics_{part}.txt").read_text()
    assert described(page) == golden, f"if this is meant, put this into tests/contract/metrics_{part}.txt"


def test_a_run_moves_every_series_of_a_node(pages: Pages) -> None:
    """A series that nothing moves promises what nobody measures."""
    every = pages.nodes + pages.nodes_meanwhile
    assert {family.name for page in every for family in families(page)} - moved(*every) <= set(MOVED_ELSEWHERE)


def test_a_run_moves_every_series_of_the_coordinator(pages: Pages) -> None:
    """The same for the coordinator."""
    every = (pages.coordinator, pages.coordinator_meanwhile, pages.coordinator_after_a_break)
    assert {family.name for page in every for family in families(page)} - moved(*every) <= set(MOVED_ELSEWHERE)


def test_names_follow_the_house_and_prometheus(pages: Pages) -> None:
    """Prefix, base units, `_total` on counters and on nothing else, help as a sentence."""
    for page in (pages.nodes[0], pages.coordinator):
        for family in families(page):
            assert ENTRY.match(family.name)
            assert not UNITS_THAT_ARE_NOT_BASE.search(family.name)
            assert not family.name.endswith("_total")
            assert {sample.name.endswith("_total") for sample in family.samples} <= {family.type == "counter"}
            assert family.documentation.endswith(".")


def test_labels_come_from_closed_sets(pages: Pages) -> None:
    """No label holds an id or a text: kinds, reasons, outcomes, members and models only."""
    closed = {
        "kind": {"attention", "ffn"},
        "reason": {*(cls.reason for cls in all_error_classes()), *REASONS, *CALL_REASONS},
        "port": {"calls", "rounds", "members", "joining", "metrics"},
        "outcome": {"done", "error", "cancelled"},
        "finished_reason": {"stop", "length", "cancelled"},
        "node": {*NODES, ""},  # what is nobody's, or the coordinator's own
        "observer": {OBSERVER},
        "cause": set(CAUSES),
        "encoding": set(ALL_ENCODINGS),
        "origin": {SENT, THERE},
        "transport": set(CARRIERS),
        "model": {pages.model},
        "program": {"coordinator", "shardnode"},
        "version": {program_version()},
    }
    for page in (*pages.nodes, pages.coordinator, pages.coordinator_after_a_break):
        for label, values in label_values(page).items():
            assert values <= closed[label]


def test_the_coordinators_counts_are_those_of_the_run(pages: Pages) -> None:
    """Three prompt tokens, four of the answer: 2 layers x 2 kinds x 4 sweeps; a request refused in its first round."""
    page = pages.coordinator
    prefix, own = "shardmesh_coordinator_", {"model": pages.model}
    assert total(page, "shardmesh_prompt_tokens_total", **own) == 3
    assert total(page, "shardmesh_generation_tokens_total", **own) == 4
    assert total(page, "shardmesh_request_success_total", finished_reason=LENGTH, **own) == 1
    assert total(page, "shardmesh_request_failures_total", reason="KV_BUDGET_EXCEEDED", **own) == 1
    assert total(page, f"{prefix}node_failures_total", node="node0", reason="KV_BUDGET_EXCEEDED") == 1
    assert total(page, f"{prefix}sweep_seconds_count") == 5
    for stem, count in (("time_to_first_token", 1), ("inter_token_latency", 3), ("request_queue_time", 1),
                        ("request_prefill_time", 1), ("request_decode_time", 1), ("e2e_request_latency", 1)
                        ):  # fmt: skip
        assert total(page, f"shardmesh_{stem}_seconds_count", **own) == count
    for node in NODES:
        assert total(page, f"{prefix}round_trip_seconds_count", node=node) == 17
        assert total(page, f"{prefix}node_serves", node=node, **own) == 1
    for stem in ("slowest", "last"):
        assert sum(total(page, f"{prefix}{stem}_rounds_total", node=node) for node in NODES) == 17
    for series, meanwhile in ((f"{prefix}sequences", {}), ("shardmesh_num_requests_running", own)):
        assert total(pages.coordinator_meanwhile, series, **meanwhile) == 1
        assert total(page, series, **meanwhile) == 0
    assert total(pages.coordinator_meanwhile, "shardmesh_kv_cache_usage_ratio", **own) > 0


def test_what_both_sides_count_of_rounds_is_the_same(pages: Pages) -> None:
    """Rounds are those that records have; bytes are a little more on nodes, where a session's first messages count."""
    for node, page in zip(NODES, pages.nodes, strict=True):
        assert total(page, "shardmesh_node_rounds_total") == 17
        for here, there in (("received", "sent"), ("sent", "received")):
            counted = total(pages.coordinator, f"shardmesh_coordinator_round_{here}_bytes_total", node=node)
            assert 0 < counted <= total(page, f"shardmesh_node_round_{there}_bytes_total") < counted + 4096


def test_both_programs_say_which_they_are_and_since_when_they_run(pages: Pages) -> None:
    """Alerts on restarts and on mixed versions need no more."""
    for page, program in ((pages.nodes[0], "shardnode"), (pages.coordinator, "coordinator")):
        assert total(page, "shardmesh_build_info", program=program, version=program_version()) == 1
        assert "\nprocess_start_time_seconds " in page


def test_a_nodes_counts_are_those_of_the_run(pages: Pages) -> None:
    """Sweeps, blocks, one refused sequence; what is resident was read once and what streams was read every sweep."""
    streaming, resident = pages.nodes
    for page in pages.nodes:
        assert total(page, "shardmesh_node_sweeps_total") == 5
        assert total(page, "shardmesh_node_failures_total", reason="KV_BUDGET_EXCEEDED") == 1
        for kind in ("attention", "ffn"):
            assert total(page, "shardmesh_node_compute_seconds_count", kind=kind) == 8
        assert total(page, "shardmesh_node_kv_budget_bytes") == 40_000
        assert total(page, "shardmesh_node_sequences") == total(page, "shardmesh_node_kv_bytes") == 0
    for page in pages.nodes_meanwhile:
        assert total(page, "shardmesh_node_sequences") == 1
        assert 0 < total(page, "shardmesh_node_kv_bytes") <= 40_000
    assert total(resident, "shardmesh_node_window_bytes") == 0
    assert total(resident, "shardmesh_node_read_bytes_total") == total(resident, "shardmesh_node_resident_bytes")
    assert total(streaming, "shardmesh_node_resident_bytes") == 0
    assert total(streaming, "shardmesh_node_peak_weight_bytes") <= total(streaming, "shardmesh_node_window_bytes")
    read, cached = (total(streaming, f"shardmesh_node_{stem}_bytes_total") for stem in ("read", "cached_read"))
    assert read + cached > 4 * total(streaming, "shardmesh_node_window_bytes")


def test_a_session_that_fails_over_grpc_is_counted(sliced: SlicedModel) -> None:
    """The node counts a failure whatever transport it came over."""
    node = RunningNode(sliced.node_config(metrics_port=0))
    try:
        with grpc.insecure_channel(node.address, options=channel_options()) as channel:
            client = GrpcShardClient(channel, "node 0")
            with pytest.raises(ProtocolError):
                ask(client, open_sequence(1))
            client.close()
        assert total(scraped(node), "shardmesh_node_failures_total", reason="PROTOCOL") == 1
    finally:
        node.close()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("part", ["node", "coordinator"])
def test_promtool_has_nothing_to_say(pages: Pages, part: str) -> None:
    """Prometheus's own linter finds no fault with the pages."""
    page = pages.nodes[0] if part == "node" else pages.coordinator
    result = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert [line for line in (result.stdout + result.stderr).splitlines() if not line.startswith("process_")] == []
