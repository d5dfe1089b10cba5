"""What will a model take and how fast will it be on these devices, before anything is moved? Arithmetic only.

Covers: per device bytes on disk, peak memory, its part of a token and of a prompt; what limits the whole.
Does not cover: measuring (common/compute/device_speeds.py, links.py), choosing a plan (strategies.py).

A token is layers x two rounds. A round lasts as long as its slowest node computes, plus the way there and back with
all nodes on the coordinator's link. A node computes at the rate at which weights reach its processor: from memory
where they stay, from the disk where they stream; reading goes on between rounds, so a disk delays a token only by what
it needs beyond the token's other time. A prompt adds arithmetic and larger messages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.errors import WindowTooSmall
from common.machine.node_budget import share_budget
from common.model.sweep_size import rows_per_sweep
from common.weights.open_tiles import CACHED_SHARE
from common.weights.pinning import plan_weights
from common.weights.reader import ReadSettings
from common.weights.slice_description import COORDINATOR_RANK, HEAD_FILE, SliceDescription
from common.weights.slice_format import BLOCK_KINDS, FileLayout
from common.weights.weight_memory import WeightMemory
from common.wording import counted
from coordinator.local.shares import ROW_COPIES

MEMORY_SHARE = 0.75
"""Of the rate of one large product: what blocks of a model reach, with their smaller products and the steps between.
This and the next two follow from `make bench ARGS="--only plan"`."""
CACHED_RATE_SHARE = 0.8
"""Of the rate from memory: what weights in the page cache reach."""
ARITHMETIC_SHARE = 0.9
"""Of the rate of one large product: what a prompt's blocks reach."""
DECODED_PER_OPERATION = 0.06
"""Numbers that kernels make of blocks for a single row, of the operations of a large product: `--only kernels`."""
ROUND_SECONDS = 0.0002
"""A node's own work for a round: taking a message apart, tables, the answer."""
SWEEP_SECONDS = 0.002
"""The coordinator's own work for a token: embedding, sampling, text."""
PROGRAM_BYTES = 75_000_000
"""Of a node's interpreter and libraries, where the node itself has not told."""
WORK_BYTES = 40_000_000
"""Touched once a node works: code of products, messages, thread stacks."""


@dataclass(frozen=True, kw_only=True)
class PlannedDevice:
    """What a device has, for a plan; rates in units a second."""

    name: str
    memory_bytes: int
    """That may be used: the budget it was told, else what is free."""
    has_budget: bool
    """Whether it was told one; otherwise it keeps a window and leaves the rest to the page cache."""
    disk_bytes: int
    """Free for slices."""
    memory_rate: float
    disk_rate: float
    arithmetic_rate: float
    program_bytes: int = PROGRAM_BYTES
    round_trip_seconds: float = 0.0005
    link_rate: float = 125e6
    """Bytes a second, each way."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Who takes part."""

    own: PlannedDevice
    """The coordinator's."""
    nodes: tuple[PlannedDevice, ...]
    """By rank."""
    empty_round_seconds: Mapping[int, float] = field(default_factory=dict)
    """Measured: by bytes of a node's message, the seconds of a round in which nobody computes. Empty: they follow from
    round trips and rates."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is asked for."""

    prompt_tokens: int = 128
    length: int = 128
    wire_bytes: int = 4
    """Of one number in a message."""


@dataclass(frozen=True, kw_only=True)
class DevicePrediction:
    """One device's part."""

    name: str
    slice_bytes: int
    peak_memory_bytes: int
    streamed_bytes: int
    """Read from the disk for each token."""
    compute_seconds: float
    """For a token, weights from memory."""
    disk_seconds: float
    """For a token."""
    link_seconds: float
    """Its own way there and back, all rounds of a token."""
    prompt_seconds: float
    has_budget: bool
    """Whether it was told how much memory it may use."""
    fits: bool
    """Whether its disk and memory suffice."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The whole mesh."""

    devices: tuple[DevicePrediction, ...]
    seconds_per_token: float
    ttft_seconds: float
    bottleneck: str
    """One sentence."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Prediction:
        """Return what dataclasses.asdict has taken apart, in this program or in its neighbour on this machine."""
        return cls(**{**value, "devices": tuple(DevicePrediction(**one) for one in value["devices"])})


def predict(description: SliceDescription, devices: Devices, workload: Workload) -> Prediction:
    """Return what a model will take and how fast it will be. Args: description: of any of its slices."""
    spec, plan = description.spec, description.plan
    rank_layouts = [description.of_rank(rank).layouts() for rank in range(plan.world_size)]
    rows = min(rows_per_sweep(spec.hidden_size), workload.prompt_tokens)
    sweeps = math.ceil(workload.prompt_tokens / rows)
    rounds = 2 * spec.layer_count if plan.world_size > 1 else 1
    waits = {count: _empty_round(devices, spec.hidden_size * workload.wire_bytes * count) for count in (1, rows)}
    parts = [
        _device(description, layouts, device, rank, workload, rounds, sweeps)
        for rank, (layouts, device) in enumerate(zip(rank_layouts, devices.nodes, strict=True))
    ]
    computing = _slowest_rounds(rank_layouts, parts, spec.layer_count)
    head = _head_seconds(description, devices.own)
    token = computing + rounds * waits[1] + head + SWEEP_SECONDS
    token = max(token, max(part.disk_seconds for part in parts))
    prompt = max(part.prompt_seconds for part in parts) + sweeps * rounds * waits[rows] + head + SWEEP_SECONDS
    return Prediction(
        devices=tuple(parts), seconds_per_token=token, ttft_seconds=prompt,
        bottleneck=_bottleneck(parts, computing, rounds, waits[1], head, token),
    )  # fmt: skip


def _device(
    description: SliceDescription, layouts: dict[str, FileLayout], device: PlannedDevice, rank: int,
    workload: Workload, rounds: int, sweeps: int,
) -> DevicePrediction:  # fmt: skip
    spec = description.spec
    tiles = [tile.byte_count for layout in layouts.values() for tile in layout.tiles]
    weight_bytes, slice_bytes = sum(tiles), sum(layout.file_bytes for layout in layouts.values())
    kv_heads = len(description.plan.shares[rank].kv_heads(spec))
    kv_bytes = spec.kv_bytes(kv_heads, workload.prompt_tokens + workload.length)
    row_count = min(workload.prompt_tokens, rows_per_sweep(spec.hidden_size))
    rows_bytes = ROW_COPIES * row_count * spec.hidden_size * 4
    fixed_bytes = device.program_bytes + WORK_BYTES + kv_bytes + rows_bytes
    held_bytes, streamed_bytes, rate_share = _weights(device, layouts, tiles)
    memory_rate = device.memory_rate * MEMORY_SHARE * rate_share
    weight_count = description.of_rank(rank).weight_count()
    compute = max(weight_bytes / memory_rate, _decoding(description, weight_count, device)) + rounds * ROUND_SECONDS
    disk = streamed_bytes / device.disk_rate if streamed_bytes else 0.0
    arithmetic = 2 * workload.prompt_tokens * weight_count
    prompt = max(sweeps * disk, arithmetic / (device.arithmetic_rate * ARITHMETIC_SHARE), sweeps * compute)
    one_way = spec.hidden_size * workload.wire_bytes / device.link_rate
    return DevicePrediction(
        name=device.name, slice_bytes=slice_bytes, peak_memory_bytes=fixed_bytes + max(0, held_bytes),
        streamed_bytes=streamed_bytes, compute_seconds=compute, disk_seconds=disk,
        link_seconds=rounds * (device.round_trip_seconds + 2 * one_way), prompt_seconds=prompt,
        has_budget=device.has_budget, fits=held_bytes >= 0 and slice_bytes <= device.disk_bytes,
    )  # fmt: skip


def _weights(device: PlannedDevice, layouts: dict[str, FileLayout], tiles: list[int]) -> tuple[int, int, float]:
    """Return bytes of weights that a process holds, bytes that it reads for each token, and its share of memory's rate.

    Held bytes are negative where not even a window fits.
    """
    settings = ReadSettings()
    block_bytes = max((sum(tile.byte_count for tile in layout.tiles) for layout in layouts.values()), default=0)
    budget = None
    if device.has_budget:
        budget = max(1, share_budget(device.memory_bytes, program_bytes=device.program_bytes).weight_bytes)
    memory = WeightMemory(budget_bytes=budget)
    window = memory.wanted_window_bytes(
        block_bytes=block_bytes, tile_bytes=max(tiles, default=0), reads_in_flight=settings.reads_in_flight
    )
    try:
        plan = plan_weights(tiles, window_bytes=window, budget_bytes=budget)
    except WindowTooSmall:
        return -1, sum(tiles), 1.0
    resident = sum(tiles[index] for index in plan.resident)
    if not device.has_budget:
        is_cached = sum(tiles) <= CACHED_SHARE * device.memory_bytes
        return plan.window_bytes, 0 if is_cached else sum(tiles), CACHED_RATE_SHARE if is_cached else 1.0
    return plan.window_bytes + resident, sum(tiles) - resident, 1.0


def _slowest_rounds(
    rank_layouts: Sequence[dict[str, FileLayout]], parts: Sequence[DevicePrediction], layer_count: int
) -> float:
    """Return the seconds of a token's rounds, in each of which the slowest node counts."""
    total = 0.0
    for kind in BLOCK_KINDS:
        seconds = []
        for layouts, part in zip(rank_layouts, parts, strict=True):
            whole = sum(layout.file_bytes for layout in layouts.values()) or 1
            own = sum(layout.file_bytes for name, layout in layouts.items() if f".{kind}." in name)
            seconds.append(part.compute_seconds * own / whole / layer_count)
        total += layer_count * max(seconds)
    return total


def _empty_round(devices: Devices, byte_count: int) -> float:
    """Return the seconds of a round in which nobody computes; between measured sizes along a straight line."""
    if measured := devices.empty_round_seconds:
        (small, small_seconds), (large, large_seconds) = min(measured.items()), max(measured.items())
        slope = (large_seconds - small_seconds) / max(1, large - small)
        return max(0.0, small_seconds + slope * (byte_count - small))
    nodes = devices.nodes
    slowest = max(2 * byte_count / node.link_rate + node.round_trip_seconds for node in nodes)
    shared = 2 * len(nodes) * byte_count / devices.own.link_rate + max(node.round_trip_seconds for node in nodes)
    return max(slowest, shared)


def _head_seconds(description: SliceDescription, own: PlannedDevice) -> float:
    head = description.of_rank(COORDINATOR_RANK).layouts()[HEAD_FILE]
    weight_count = description.spec.vocab_size * description.spec.hidden_size
    by_memory = head.file_bytes / (own.memory_rate * MEMORY_SHARE * CACHED_RATE_SHARE)
    return max(by_memory, _decoding(description, weight_count, own))


def _decoding(description: SliceDescription, weight_count: int, device: PlannedDevice) -> float:
    """Return the seconds in which processors make so many numbers of blocks; 0 of plain numbers, which they read."""
    if description.encodings is None:
        return 0.0
    return weight_count / (device.arithmetic_rate * DECODED_PER_OPERATION)


def _bottleneck(
    parts: Sequence[DevicePrediction], computing: float, rounds: int, wait: float, head: float, token: float
) -> str:
    by_disk = max(parts, key=lambda part: part.disk_seconds)
    if by_disk.disk_seconds >= token:
        hint = "" if by_disk.has_budget else "; with --memory-budget auto it would keep more"
        return (f"{by_disk.name}'s disk: {by_disk.streamed_bytes / 1e9:.2f} GB a token do not fit its memory and take "
                f"{by_disk.disk_seconds:.2f} s{hint}")  # fmt: skip
    if rounds * wait >= max(computing, head):
        farthest = max(parts, key=lambda part: part.link_seconds)
        return (f"{farthest.name}'s link: {1000 * wait:.1f} ms a round, {counted(rounds, 'round')} a token, "
                f"{1000 * rounds * wait:.0f} of {1000 * token:.0f} ms")  # fmt: skip
    if head > computing:
        return f"the coordinator's head: {1000 * head:.0f} of {1000 * token:.0f} ms a token"
    slowest = max(parts, key=lambda part: part.compute_seconds)
    share = f"{1000 * slowest.compute_seconds:.0f} of {1000 * token:.0f} ms"
    return f"{slowest.name}'s processor: to take its weights out of memory and compute with them takes {share} a token"
