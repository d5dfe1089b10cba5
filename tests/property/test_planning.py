"""Do plans and predictions make sense on any devices: who has more gets more, and nothing better is passed by?"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from common.model.plan import Plan, make_plan
from coordinator.planning.prediction import Devices, PlannedDevice, Prediction, Workload, predict
from coordinator.planning.strategies import MEASURED, MEMORY, plan_for
from tests.support.planned_models import DESCRIPTION, SPEC

OWN = PlannedDevice(
    name="desk", memory_bytes=16 << 30, has_budget=False, disk_bytes=1 << 40, memory_rate=10e9, disk_rate=1e9,
    arithmetic_rate=100e9,
)  # fmt: skip
WORKLOAD = Workload()


def devices(has_budget: bool = True) -> st.SearchStrategy[list[PlannedDevice]]:
    """Return from two to five devices of any kind."""
    one = st.builds(
        PlannedDevice, name=st.just("node"), memory_bytes=st.integers(600 << 20, 32 << 30),
        has_budget=st.just(has_budget), disk_bytes=st.just(1 << 40), memory_rate=st.floats(1e9, 50e9),
        disk_rate=st.floats(20e6, 5e9), arithmetic_rate=st.floats(1e9, 500e9),
        round_trip_seconds=st.floats(1e-4, 0.02), link_rate=st.floats(1e5, 1e9),
    )  # fmt: skip
    return st.lists(one, min_size=2, max_size=5)


def predicted(strategy: str, nodes: list[PlannedDevice]) -> Prediction:
    """Return what a strategy's plan would give."""
    return expected(plan_for(DESCRIPTION, strategy, Devices(own=OWN, nodes=tuple(nodes)), WORKLOAD), nodes)


def expected(plan: Plan, nodes: list[PlannedDevice], own: PlannedDevice = OWN) -> Prediction:
    """Return what a plan would give."""
    return predict(replace(DESCRIPTION, plan=plan), Devices(own=own, nodes=tuple(nodes)), WORKLOAD)


@settings(max_examples=25, deadline=None)
@given(nodes=devices())
def test_measured_is_never_worse_than_uniform_or_memory(nodes: list[PlannedDevice]) -> None:
    """Where one of them fits, so does it; and then it is at least as fast."""
    ours = predicted(MEASURED, nodes)
    for other in (predicted("uniform", nodes), predicted(MEMORY, nodes)):
        if all(part.fits for part in other.devices):
            assert all(part.fits for part in ours.devices)
            assert ours.seconds_per_token <= other.seconds_per_token * 1.0001


@settings(max_examples=25, deadline=None)
@given(nodes=devices(), slower=st.integers(0, 4), times=st.floats(1.5, 20))
def test_no_slower_part_makes_a_prediction_faster(nodes: list[PlannedDevice], slower: int, times: float) -> None:
    """For the same plan: memory, disk, arithmetic, link and round trip, each on its own."""
    index = slower % len(nodes)
    plan = make_plan(SPEC, "uniform", len(nodes))
    before = expected(plan, nodes)
    for name in ("memory_rate", "disk_rate", "arithmetic_rate", "link_rate"):
        worse = [*nodes]
        worse[index] = replace(nodes[index], **{name: getattr(nodes[index], name) / times})
        after = expected(plan, worse)
        assert after.seconds_per_token >= before.seconds_per_token * 0.9999
        assert after.ttft_seconds >= before.ttft_seconds * 0.9999


@settings(max_examples=25, deadline=None)
@given(nodes=devices())
def test_a_node_under_a_budget_is_predicted_to_keep_it(nodes: list[PlannedDevice]) -> None:
    """Or not to fit."""
    for part, device in zip(predicted(MEMORY, nodes).devices, nodes, strict=True):
        assert not part.fits or part.peak_memory_bytes <= device.memory_bytes
        assert part.streamed_bytes <= part.slice_bytes


def test_memory_gives_who_has_twice_the_room_twice_the_weights() -> None:
    """As near as whole heads and columns come to it."""
    small = replace(OWN, name="small", memory_bytes=2_000_000_000, program_bytes=0)
    large = replace(small, name="large", memory_bytes=4_000_000_000)
    part, other = predicted(MEMORY, [small, large]).devices
    assert 1.9 < other.slice_bytes / part.slice_bytes < 2.1


def test_measured_gives_a_slow_node_less() -> None:
    """A Pi beside a laptop holds what it reads in the same time; the laptop the rest."""
    pi = replace(OWN, name="pi", memory_rate=2e9, memory_bytes=4 << 30)
    laptop = replace(OWN, name="laptop", memory_rate=16e9)
    slow, fast = predicted(MEASURED, [pi, laptop]).devices
    assert 4 < fast.slice_bytes / slow.slice_bytes < 16
    assert max(slow.compute_seconds, fast.compute_seconds) < 2.2 * min(slow.compute_seconds, fast.compute_seconds)


def test_the_bottleneck_is_named() -> None:
    """A link, a disk, a memory, the head: each when it is what takes longest."""
    base = replace(OWN, name="kitchen", round_trip_seconds=1e-4, link_rate=1e9)
    other = replace(base, name="attic")

    def said(**changes: float) -> str:
        return predicted("uniform", [replace(base, **changes), other]).bottleneck  # type: ignore[arg-type] # numbers

    assert said(round_trip_seconds=0.02).startswith("kitchen's link: 20.3 ms a round, 32 rounds a token")
    assert said(memory_rate=0.5e9).startswith("kitchen's processor")
    tight = replace(base, has_budget=True, memory_bytes=700_000_000, disk_rate=50e6)
    assert predicted("uniform", [tight, other]).bottleneck.startswith("kitchen's disk")
    quick = [replace(base, memory_rate=1e12), replace(other, memory_rate=1e12)]
    slow_desk = replace(OWN, memory_rate=0.5e9)
    plan = make_plan(SPEC, "uniform", 2)
    assert expected(plan, quick, slow_desk).bottleneck.startswith("the coordinator")
