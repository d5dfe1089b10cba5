"""What would make a mesh faster, and by how much? From what its sweeps were spent on, and what its devices have. Pure.

    evidence = Evidence(...)            # means of the last sweeps, measured
    for advice in advise(evidence):     # the best of them first
        advice.text, advice.saved_seconds

Covers: more memory for a disk, a processor of its own, half the bytes, a quicker link, another split, one more node,
one less. Each is what was measured, with one thing changed. Does not cover: asking for any of it (cli/why.py), the
planner's arithmetic (planning/prediction.py), whose plans are scaled here so that the present one takes what was
measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from common.errors import InputError
from common.model.plan import Plan, make_plan
from common.program.sizes import shown_size
from common.weights.slice_description import SliceDescription
from coordinator.planning.prediction import (
    PROGRAM_BYTES,
    ROUND_SECONDS,
    DevicePrediction,
    Devices,
    PlannedDevice,
    Prediction,
    Workload,
    predict,
)
from coordinator.planning.strategies import plan_by_speed
from coordinator.ranks.critical_path import COORDINATOR, CORE_WAIT, DISK, LINK, PROCESSOR, QUEUE, UNKNOWN

LEAST_SAVED = 0.03
"""Of a token: less is not worth doing anything for."""
ABOUT_AS_MUCH = 0.8
"""Of the most: what saves so much is as good, and then the easier comes first."""
EASIEST_FIRST = ("budget", "processor", "split", "bfloat16", "link", "without", "node")
GRAIN_BYTES = 10_000_000
KV_SHARE = 4
QUICK_DISK = 1e12
"""Bytes a second of a disk that nobody waits for."""
BARELY_KEPT = 64_000_000
"""Of a device's free memory, left alone."""


@dataclass(frozen=True, kw_only=True)
class NodeEvidence:
    """One node: what it did in a sweep, in seconds, and what it has."""

    name: str
    processor_seconds: float
    core_wait_seconds: float
    disk_seconds: float
    byte_count: float
    """Of messages there and back."""
    gains: Mapping[str, float]
    """By cause: how much sooner a sweep would have ended without."""
    round_trip_seconds: float
    bytes_per_second: float
    resident_bytes: int
    """Of weights, that stay."""
    budget_bytes: int
    """The most memory that it may take; 0: it was told none."""
    kv_bytes: int
    """The most that keys and values may take."""
    free_bytes: int
    """Of memory, beside all that runs."""
    disk_bytes: int
    program_bytes: int = PROGRAM_BYTES


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One model's sweeps."""

    seconds: float
    """Of a sweep."""
    parts: Sequence[tuple[str, str, float]]
    """(node, cause, seconds), the largest first; they add up."""
    nodes: Sequence[NodeEvidence]
    """By rank."""
    halved_gain: float
    wire_dtype: str
    description: SliceDescription
    """With the plan that they work by."""
    tiles_bytes: Sequence[int]
    """By rank: of all weights."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing to do."""

    kind: str
    """budget, processor, bfloat16, link, split, node or without."""
    node: str
    """Whom it is about; empty: all."""
    text: str
    """What to do, to be followed by `would take 0.40 s off`."""
    saved_seconds: float
    """Of each sweep."""
    bytes: int = 0
    """Of the budget, where it is about one."""


def advise(evidence: Evidence) -> list[Advice]:
    """Return what is worth doing, what saves most first, and of about as much the easier."""
    found = [*_budgets(evidence), *_direct(evidence), *_plans(evidence)]
    worth = [one for one in found if one.saved_seconds >= LEAST_SAVED * evidence.seconds]
    most = max((one.saved_seconds for one in worth), default=0.0)

    def place(one: Advice) -> tuple[bool, float]:
        is_among_best = one.saved_seconds >= ABOUT_AS_MUCH * most
        return not is_among_best, EASIEST_FIRST.index(one.kind) if is_among_best else -one.saved_seconds

    return sorted(worth, key=place)


def _budgets(evidence: Evidence) -> Iterator[Advice]:
    """Yield more memory for nodes that wait for their disk: what stays is read no more, and the disk never rests."""
    for node, all_bytes in zip(evidence.nodes, evidence.tiles_bytes, strict=True):
        gain, streamed = node.gains.get(DISK, 0.0), all_bytes - node.resident_bytes
        if gain <= 0 or streamed <= 0:
            continue
        enough = streamed * gain / evidence.seconds  # without it the disk is as quick as all else
        share = 1.0
        if node.budget_bytes and abs(node.kv_bytes - node.budget_bytes // KV_SHARE) <= 1:
            share = 1 - 1 / KV_SHARE  # of more memory keys and values get a part
        room = max(0, node.free_bytes - BARELY_KEPT) if node.free_bytes else streamed
        more = min(enough / share, room)
        if more < GRAIN_BYTES:
            continue
        more = -(-more // GRAIN_BYTES) * GRAIN_BYTES
        saved = min(gain, evidence.seconds * more * share / streamed)
        budget = int(node.budget_bytes + more) if node.budget_bytes else 0
        text = (f"{shown_size(int(more))} more budget there (--memory-budget {budget / 1e9:.2f}GB)" if budget
                else "a budget there (--memory-budget auto), so that weights stay")  # fmt: skip
        yield Advice(kind="budget", node=node.name, text=text, saved_seconds=saved, bytes=budget)


def _direct(evidence: Evidence) -> Iterator[Advice]:
    """Yield what takes away one thing that sweeps were seen to wait for."""
    for node in evidence.nodes:
        yield Advice(
            kind="processor", node=node.name, saved_seconds=node.gains.get(CORE_WAIT, 0.0),
            text=f"cores of its own for {node.name} (no quota below its --threads, nothing beside it)",
        )  # fmt: skip
    if len(evidence.nodes) > 1 and evidence.wire_dtype == "float32":
        yield Advice(
            kind="bfloat16", node="", saved_seconds=evidence.halved_gain,
            text="half the bytes (coordinator --wire-dtype bfloat16, which rounds)",
        )  # fmt: skip
    for node in evidence.nodes:
        yield Advice(
            kind="link", node=node.name, saved_seconds=node.gains.get(LINK, 0.0) / 2,
            text=f"a link to {node.name} twice as quick",
        )  # fmt: skip


def _plans(evidence: Evidence) -> Iterator[Advice]:
    """Yield other plans, as the planner predicts them for devices that are as quick as they were seen to be."""
    nodes, described = evidence.nodes, evidence.description
    seen, everybody = SeenDevices(evidence), list(range(len(evidence.nodes)))
    now = seen.predicted(described.plan, everybody).seconds_per_token
    slowest = max(everybody, key=lambda rank: _waited_for(evidence, nodes[rank].name))
    quickest = min(
        everybody,
        key=lambda rank: nodes[rank].processor_seconds + nodes[rank].core_wait_seconds + nodes[rank].disk_seconds,
    )
    names = [node.name for node in nodes]
    ways = [("node", [*everybody, quickest], [*names, "NEW"], f"one more node like {names[quickest]}")]
    if len(nodes) > 1:
        others = [rank for rank in everybody if rank != slowest]
        ways.append(("split", everybody, names, "a split by what each can do"))
        ways.append(("without", others, [names[rank] for rank in others], f"to do without {names[slowest]}"))
    for kind, ranks, named, text in ways:
        devices = seen.devices(ranks)
        try:
            best = plan_by_speed(described, devices, seen.workload)
            split = _ratio([part.slice_bytes for part in seen.predicted(best, ranks).devices])
            plan = make_plan(described.spec, split, len(ranks))  # by what is typed, and not what it was rounded from
        except InputError:  # more nodes than the model has heads for
            continue
        predicted = seen.predicted(plan, ranks)
        if all(part.fits for part in predicted.devices):
            how = f"load --nodes {','.join(named)}" + (f" --split-strategy {split}" if len(ranks) > 1 else "")
            saved = evidence.seconds * (1 - predicted.seconds_per_token / now)
            about = "" if kind == "split" else names[slowest]
            yield Advice(kind=kind, node=about, text=f"{text} ({how})", saved_seconds=saved)


def _ratio(slice_bytes: Sequence[int]) -> str:
    """Return a split strategy by which nodes hold about these parts of a model, in hundredths of it."""
    whole = sum(slice_bytes)
    return "ratio:" + ",".join(str(max(1, round(100 * one / whole))) for one in slice_bytes)


def _waited_for(evidence: Evidence, name: str) -> float:
    return sum(seconds for node, _, seconds in evidence.parts if node == name)


class SeenDevices:
    """Devices with the rates that the sweeps have shown, so that the plan of now takes what was measured."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self.workload = Workload(wire_bytes=2 if evidence.wire_dtype == "bfloat16" else 4)
        self._rounds = 2 * evidence.description.spec.layer_count if len(evidence.nodes) > 1 else 1
        self._own_seconds = sum(
            seconds for _, cause, seconds in evidence.parts if cause in (COORDINATOR, UNKNOWN, QUEUE)
        )
        self._nodes = [self._device(rank, node) for rank, node in enumerate(evidence.nodes)]
        seen = self.predicted(evidence.description.plan, range(len(evidence.nodes))).devices
        self._nodes = [
            self._calibrated(rank, device, part)
            for rank, (device, part) in enumerate(zip(self._nodes, seen, strict=True))
        ]

    def _calibrated(self, rank: int, device: PlannedDevice, part: DevicePrediction) -> PlannedDevice:
        """Return a device that takes as long, and keeps as much, as was seen. Args: part: predicted of the plan of now.

        What a disk would do that nothing is read from, nobody has seen: no plan is to need it.
        """
        node, memory_bytes = self._evidence.nodes[rank], device.memory_bytes
        streamed = self._evidence.tiles_bytes[rank] - node.resident_bytes
        if device.has_budget and streamed > 0 and part.streamed_bytes:
            memory_bytes -= int((streamed - part.streamed_bytes) / (1 - 1 / KV_SHARE))
        return replace(
            device, memory_bytes=max(1, memory_bytes),
            memory_rate=device.memory_rate * self._work(part.compute_seconds) / self._computing(node),
            disk_rate=device.disk_rate if part.streamed_bytes or device.disk_rate < QUICK_DISK else 1.0,
        )  # fmt: skip

    def devices(self, ranks: Sequence[int]) -> Devices:
        """Return the devices of a plan. Args: ranks: of the plan of now, for each rank of it."""
        nodes = self._evidence.nodes
        rounds = 2 * self._evidence.description.spec.layer_count if len(ranks) > 1 else 1
        own = PlannedDevice(
            name="", memory_bytes=1 << 60, has_budget=False, disk_bytes=1 << 60, memory_rate=1e15, disk_rate=1e15,
            arithmetic_rate=1e15,
        )  # fmt: skip
        # What was seen of the links is in all rounds together; the farthest of those that are left counts.
        links = max(self._link_seconds(nodes[rank], rounds) for rank in ranks)
        wait = (links + self._own_seconds) / rounds
        return Devices(
            own=own, nodes=tuple(self._nodes[rank] for rank in ranks), empty_round_seconds={1: wait, 1 << 40: wait}
        )

    def predicted(self, plan: Plan, ranks: Sequence[int]) -> Prediction:
        """Return what the planner makes of a plan. Args: ranks: as in `devices`."""
        description = replace(self._evidence.description, plan=plan)
        return predict(description, self.devices(ranks), self.workload)

    def _link_seconds(self, node: NodeEvidence, rounds: int) -> float:
        """Return what was waited for a node's link, or would be if others were not slower."""
        seen = sum(seconds for name, cause, seconds in self._evidence.parts if (name, cause) == (node.name, LINK))
        alone = node.round_trip_seconds * self._rounds
        if node.bytes_per_second:
            alone += node.byte_count / node.bytes_per_second
        return max(seen, alone) * rounds / self._rounds

    def _device(self, rank: int, node: NodeEvidence) -> PlannedDevice:
        """Return a device that reads at the rate that it had; how it computes is not known yet."""
        all_bytes = self._evidence.tiles_bytes[rank]
        streamed = max(0, all_bytes - node.resident_bytes)
        is_waited_for = node.gains.get(DISK, 0.0) > 0 or node.disk_seconds > 0.1 * self._evidence.seconds
        rate = streamed / self._evidence.seconds if is_waited_for and streamed else QUICK_DISK
        # Without a budget a node keeps a window, and the page cache what it can: that is what it has.
        memory = node.budget_bytes or max(node.free_bytes, all_bytes)
        return PlannedDevice(
            name=node.name, memory_bytes=memory, has_budget=bool(node.budget_bytes), disk_bytes=node.disk_bytes,
            memory_rate=1e9, disk_rate=max(1.0, rate), arithmetic_rate=1e15, program_bytes=node.program_bytes,
        )  # fmt: skip

    def _work(self, seconds: float) -> float:
        """Return what kernels take of a node's time in a sweep, as the planner counts the rest."""
        return max(1e-6, seconds - self._rounds * ROUND_SECONDS)

    def _computing(self, node: NodeEvidence) -> float:
        """Return what a node's work takes, with what it waits for a core for before it can begin or send."""
        waited_for = sum(
            seconds for name, cause, seconds in self._evidence.parts
            if name == node.name and cause in (PROCESSOR, CORE_WAIT)
        )  # fmt: skip
        return self._work(max(waited_for, node.processor_seconds + node.core_wait_seconds))
