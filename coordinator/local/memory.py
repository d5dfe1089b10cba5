"""What memory each process of this machine gets for weights, keys and values, and how all of them read.

Covers: sharing a budget out over the coordinator's head and the nodes that are started here; one decision on the page
cache and the disk for all of them. Does not cover: the arithmetic of shares (shares.py), nodes that run already (they
have options of their own).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.machine.operating_system import keep_heap_small, own_memory
from common.model.sweep_size import rows_per_sweep
from common.program.memory_flags import parse_budget
from common.weights.manifest import SliceManifest, read_manifest
from common.weights.open_tiles import bypasses_page_cache, reads_past_cache, sweep_tiles
from common.weights.pinning import least_weight_bytes
from common.weights.reader import TileRange
from common.weights.weight_memory import WeightMemory
from coordinator.local.pool import LocalNodes
from coordinator.local.shares import share_memory

HEAD_READS_IN_FLIGHT = 2
"""Unless the disk was measured or the user says otherwise."""


@dataclass(frozen=True, kw_only=True)
class MemoryAllotment:
    """What each process of this machine gets."""

    head: WeightMemory
    nodes: tuple[WeightMemory, ...]
    """Per rank."""
    kv_bytes: tuple[int, ...]
    """Per rank: most bytes of keys and values."""
    budget_bytes: int = 0
    """Of all processes together; 0: none was told."""


def allot_memory(
    own_directory: Path,
    own_manifest: SliceManifest,
    node_directories: Sequence[Path],
    local: LocalNodes | None,
    *,
    weights: WeightMemory,
    kv_budget_bytes: int,
    memory_budget: str | None,
    position_capacity: int,
    tokenizer_bytes: int = 0,
) -> MemoryAllotment:
    """Decide how much memory the head and each node that is started here get, and how all of them read.

    Args: weights, kv_budget_bytes: of each node, where there is no `memory_budget`; that one is of all processes of
    this machine together, `tokenizer_bytes` of a tokenizer's processes included, with room for the keys and values of
    `position_capacity` positions.
    Raises: BudgetTooSmall: names the least that would do; SliceError and its kinds.
    """
    head_tiles = sweep_tiles(own_directory, own_manifest)
    head_memory = _head_memory(weights, head_tiles)
    if local is None:
        return MemoryAllotment(head=head_memory, nodes=(), kv_bytes=())
    manifests = [read_manifest(directory) for directory in node_directories]
    node_tiles = [sweep_tiles(*pair) for pair in zip(node_directories, manifests, strict=True)]
    kv_bytes: tuple[int, ...] = (kv_budget_bytes,) * len(manifests)
    node_memories = (weights,) * len(manifests)
    budget_bytes = 0
    if memory_budget is not None:
        keep_heap_small()
        measured_bytes = own_memory().counted_bytes + local.imported_memory().counted_bytes + tokenizer_bytes
        budget_bytes = parse_budget(memory_budget, taken_bytes=measured_bytes)
        shares = share_memory(
            budget_bytes,
            measured_bytes=measured_bytes,
            nodes=manifests,
            node_tile_bytes=[[tile.byte_count for tile in tiles] for tiles in node_tiles],
            head_tile_bytes=[tile.byte_count for tile in head_tiles],
            position_capacity=position_capacity,
            row_count=min(position_capacity, rows_per_sweep(manifests[0].spec.hidden_size)),
        )
        kv_bytes = shares.kv_bytes
        node_memories = tuple(replace(weights, budget_bytes=share) for share in shares.weight_bytes)
        head_memory = replace(head_memory, budget_bytes=shares.head_bytes)
    read_alike = _reading(node_directories[0], [*node_tiles, head_tiles], node_memories[0])
    return MemoryAllotment(
        head=read_alike(head_memory), nodes=tuple(map(read_alike, node_memories)), kv_bytes=kv_bytes,
        budget_bytes=budget_bytes,
    )  # fmt: skip


def _head_memory(weights: WeightMemory, tiles: Sequence[TileRange]) -> WeightMemory:
    """Return what the head gets without a budget: with --window-bytes enough, and not more than it has use for."""
    window_bytes = weights.window_bytes
    if window_bytes is not None:
        sizes = [tile.byte_count for tile in tiles]
        window_bytes = max(least_weight_bytes(sizes), min(window_bytes, 4 * max(sizes)))
    # Nodes rest while the head is computed, so the other cores may copy for it, where the page cache is used.
    reads_in_flight = weights.reads_in_flight or HEAD_READS_IN_FLIGHT
    return replace(weights, window_bytes=window_bytes, reads_in_flight=reads_in_flight)


def _reading(
    directory: Path, slices: Sequence[Sequence[TileRange]], memory: WeightMemory
) -> Callable[[WeightMemory], WeightMemory]:
    """Return what sets the way of reading for all processes alike: they share one disk and one page cache."""
    total_bytes = sum(tile.byte_count for tiles in slices for tile in tiles)
    if not bypasses_page_cache(memory, total_bytes):
        return lambda other: replace(other, page_cache="use")
    reads_in_flight, read_bytes = reads_past_cache(directory, slices[0], memory, total_bytes)
    nodes = len(slices) - 1
    if not memory.reads_in_flight and nodes > 1:
        # A node that is ahead rests with a full window, so a few more than the disk wants are asked for in all.
        reads_in_flight = math.ceil(2 * reads_in_flight / nodes)
    return lambda other: replace(other, page_cache="bypass", reads_in_flight=reads_in_flight, read_bytes=read_bytes)
