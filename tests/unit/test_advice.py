"""Is what is advised worth doing, and worth what it says, on devices that are as quick as sweeps have shown?

Covers: coordinator/answering/advice.py. Does not cover: a mesh that follows it (tests/observed/test_why.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from common.model.plan import make_plan
from coordinator.answering.advice import Advice, Evidence, NodeEvidence, SeenDevices, advise
from tests.support.planned_models import DESCRIPTION, SPEC

MB, GB = 10**6, 10**9
NAMES = ("kitchen", "attic")
SECONDS = 1.0
BUDGET, RESIDENT = 600 * MB, 250 * MB
"""Of a node whose slice has 0.97 GB."""


def make_node(name: str, **told: Any) -> NodeEvidence:
    """Return a node that has computed for a fifth of a second and waited for nothing."""
    usual: dict[str, Any] = {
        "processor_seconds": 0.2, "core_wait_seconds": 0.0, "disk_seconds": 0.0, "byte_count": 500_000.0, "gains": {},
        "round_trip_seconds": 0.0005, "bytes_per_second": 1e8, "resident_bytes": 0, "budget_bytes": 0, "kv_bytes": 0,
        "free_bytes": 8 * GB, "disk_bytes": 100 * GB,
    }  # fmt: skip
    return NodeEvidence(name=name, **{**usual, **told})


def make_evidence(first: Mapping[str, Any], *parts: tuple[str, str, float], nodes: int = 2, **more: Any) -> Evidence:
    """Return what was seen of sweeps of a second. Args: first: of kitchen; parts: what is not the coordinator's."""
    description = replace(DESCRIPTION, plan=make_plan(SPEC, "uniform", nodes))
    tiles = [
        sum(tile.byte_count for layout in description.of_rank(rank).layouts().values() for tile in layout.tiles)
        for rank in range(nodes)
    ]
    given: dict[str, Any] = {
        "seconds": SECONDS, "halved_gain": 0.0, "wire_dtype": "float32",
        "parts": [*parts, ("", "coordinator", SECONDS - sum(seconds for _, _, seconds in parts))],
        "nodes": [make_node("kitchen", **first), *[make_node(name) for name in NAMES[1:nodes]]],
        "description": description, "tiles_bytes": tiles,
    }  # fmt: skip
    return Evidence(**{**given, **more})


def of_kind(evidence: Evidence, kind: str) -> Advice:
    """Return the one advice of a kind."""
    (found,) = [one for one in advise(evidence) if one.kind == kind]
    return found


def on_disk(**told: Any) -> Evidence:
    """Return what was seen of a kitchen that waits for its disk for six tenths of a second."""
    first = {
        "disk_seconds": 0.6, "gains": {"disk": 0.6}, "budget_bytes": BUDGET, "kv_bytes": BUDGET // 4,
        "resident_bytes": RESIDENT, **told,
    }  # fmt: skip
    return make_evidence(first, ("kitchen", "disk", 0.6), ("kitchen", "processor", 0.2))


def test_more_budget_is_as_much_as_the_disk_then_keeps_up() -> None:
    """As large a part of what is read for a token stays as the wait was of it; keys and values get a quarter beside."""
    evidence = on_disk()
    more = 0.6 * (evidence.tiles_bytes[0] - RESIDENT)
    advice = of_kind(evidence, "budget")
    assert advice.saved_seconds == pytest.approx(0.6, rel=0.02)
    assert advice.bytes == pytest.approx(BUDGET + more / 0.75, abs=2 * 10 * MB)
    assert advice.node == "kitchen"
    assert f"--memory-budget {advice.bytes / GB:.2f}GB" in advice.text


def test_keys_and_values_that_have_a_size_of_their_own_get_nothing_of_more_budget() -> None:
    """The node says how much they may take."""
    evidence = on_disk(kv_bytes=100 * MB)
    assert of_kind(evidence, "budget").bytes == pytest.approx(
        BUDGET + 0.6 * (evidence.tiles_bytes[0] - RESIDENT), abs=2 * 10 * MB
    )


def test_no_more_memory_is_advised_than_a_device_has() -> None:
    """With a tenth of it a tenth of the time is saved."""
    evidence = on_disk(free_bytes=64 * MB + 100 * MB, kv_bytes=100 * MB)
    advice = of_kind(evidence, "budget")
    assert advice.bytes == BUDGET + 100 * MB
    assert advice.saved_seconds == pytest.approx(100 * MB / (evidence.tiles_bytes[0] - RESIDENT), rel=0.02)
    assert not [one for one in advise(on_disk(free_bytes=MB)) if one.kind == "budget"]


def test_a_core_that_was_waited_for_is_worth_what_others_would_have_been_sooner() -> None:
    """That is what the sweeps' facts say; the node need not be left out for it."""
    evidence = make_evidence({"core_wait_seconds": 0.5, "gains": {"core_wait": 0.45}}, ("kitchen", "core_wait", 0.5))
    first = advise(evidence)[0]
    assert (first.kind, first.node, first.saved_seconds) == ("processor", "kitchen", 0.45)


def test_half_the_bytes_are_advised_once() -> None:
    """A mesh that sends bfloat16 already, and a node that is alone, are told nothing of it."""
    evidence = make_evidence({"gains": {"link": 0.7}}, ("kitchen", "link", 0.7), halved_gain=0.3)
    assert of_kind(evidence, "bfloat16").saved_seconds == 0.3
    for other in (replace(evidence, wire_dtype="bfloat16"), make_evidence({}, nodes=1, halved_gain=0.3)):
        assert "bfloat16" not in [one.kind for one in advise(other)]


def test_the_plan_of_now_is_seen_to_take_what_was_measured() -> None:
    """Else its ratio to others would mean nothing: computing and reading, as the planner adds them up."""
    evidence = make_evidence({"processor_seconds": 0.3}, ("kitchen", "processor", 0.3), ("attic", "link", 0.6))
    predicted = SeenDevices(evidence).predicted(evidence.description.plan, [0, 1])
    assert predicted.seconds_per_token == pytest.approx(SECONDS, rel=0.1)
    disk = on_disk()
    assert SeenDevices(disk).predicted(disk.description.plan, [0, 1]).seconds_per_token == pytest.approx(
        SECONDS, rel=0.1
    )


def test_a_slow_processor_asks_for_another_split() -> None:
    """With nine tenths of the work on the quicker node."""
    evidence = make_evidence(
        {"processor_seconds": 0.9, "gains": {"processor": 0.8}}, ("kitchen", "processor", 0.9),
        parts=[("kitchen", "processor", 0.9), ("", "coordinator", 0.1)],
    )  # fmt: skip
    kinds = {one.kind: one.saved_seconds for one in advise(evidence)}
    assert kinds["split"] > 0.5
    assert kinds["split"] >= kinds.get("node", 0.0) - 0.2


def test_what_saves_next_to_nothing_is_not_advised() -> None:
    """A hundredth of a token is noise."""
    evidence = make_evidence({"gains": {"core_wait": 0.01, "link": 0.02}}, halved_gain=0.01)
    assert not {"processor", "link", "bfloat16"} & {one.kind for one in advise(evidence)}


def test_another_split_is_named_by_what_is_typed() -> None:
    """Each node, and its hundredths of the model; what it is worth is that of this plan, and of no other."""
    evidence = make_evidence(
        {"processor_seconds": 0.6}, parts=[("kitchen", "processor", 0.6), ("", "coordinator", 0.4)]
    )
    advice = of_kind(evidence, "split")
    named = re.search(r"--nodes kitchen,attic --split-strategy (ratio:(\d+),(\d+))\)$", advice.text)
    assert named, advice.text
    assert int(named[2]) + int(named[3]) == pytest.approx(100, abs=1)
    assert int(named[2]) < 40
    seen = SeenDevices(evidence)
    now = seen.predicted(evidence.description.plan, [0, 1]).seconds_per_token
    then = seen.predicted(make_plan(SPEC, named[1], 2), [0, 1]).seconds_per_token
    assert advice.saved_seconds == pytest.approx(SECONDS * (1 - then / now))


def test_what_a_node_waits_for_a_core_before_it_begins_counts_as_its_work() -> None:
    """Its kernels tell of a part of that only; the sweep's parts have all of it."""
    first = {"processor_seconds": 0.2, "core_wait_seconds": 0.05, "gains": {"core_wait": 0.4}}
    parts = [("kitchen", "processor", 0.2), ("kitchen", "core_wait", 0.45), ("", "coordinator", 0.35)]
    assert of_kind(make_evidence(first, parts=parts), "split").saved_seconds > 0.25


def test_no_plan_needs_a_disk_that_nobody_has_seen_at_work() -> None:
    """All that a node holds stays in its memory now; with more it would read, at nobody knows which rate."""
    evidence = make_evidence(
        {"budget_bytes": 1500 * MB, "kv_bytes": 375 * MB, "processor_seconds": 0.05},
        parts=[("attic", "processor", 0.8), ("", "coordinator", 0.2)],
    )  # fmt: skip
    kitchen, attic = evidence.nodes
    evidence = replace(evidence, nodes=[
        replace(kitchen, resident_bytes=evidence.tiles_bytes[0]), replace(attic, processor_seconds=0.8)
    ])  # fmt: skip
    seen = SeenDevices(evidence)
    for one in advise(evidence):
        if named := re.search(r"--split-strategy (ratio:\S+)\)", one.text):
            ranks = [0, 1] if one.kind == "split" else [0, 1, 0]
            plan = make_plan(SPEC, named[1], len(ranks))
            assert not any(part.streamed_bytes for part in seen.predicted(plan, ranks).devices[:1]), one.text


def test_a_node_keeps_as_much_in_other_plans_as_it_does_now() -> None:
    """The planner would have it keep more of a budget than it does: with one more node it would read too little."""
    for resident in (100 * MB, 200 * MB):
        evidence = on_disk(resident_bytes=resident)
        (kitchen, _) = SeenDevices(evidence).predicted(evidence.description.plan, [0, 1]).devices
        assert kitchen.streamed_bytes == pytest.approx(evidence.tiles_bytes[0] - resident, rel=0.05)
