"""How the coordinator and the nodes that it starts here run: options, and what memory each process gets for them.

Covers: sharing a budget out over this machine's processes, one decision on the page cache and the disk for all of
them. Does not cover: the arithmetic of shares (local/shares.py), nodes that run already (they have options of their
own).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.compute.device import select_device
from common.errors import InputError
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
from coordinator.membership.reach import MeshAccess
from coordinator.ranks.wire_dtype import wire_item_bytes


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the coordinator and its local nodes run."""

    weights: WeightMemory = field(default_factory=WeightMemory)
    """Memory for weights on each node that is started here, and how they are read."""
    memory_budget: str | None = None
    """Most memory of all processes of this machine together: a size, or auto; None: what the other options come to."""
    position_capacity: int = 1
    """With a budget: positions of the longest sequence, for which keys and values are kept free."""
    kv_budget_bytes: int
    """Without a budget: most bytes of keys and values on each node that is started here."""
    node_addresses: Sequence[str] = ()
    """Nodes that run already, by address, or by name in `mesh`; none: start them on this machine."""
    mesh: MeshAccess | None = None
    """The mesh that those nodes belong to, where they do."""
    use_gpu: bool = False
    wire_dtype: str = "float32"
    """How rounds' numbers travel to nodes elsewhere: float32, or bfloat16 in half the bytes."""

    def __post_init__(self) -> None:
        if self.memory_budget is not None:
            parse_budget(self.memory_budget, taken_bytes=0)  # refuses what is no size, before anything is started
        if self.memory_budget is not None and self.node_addresses:
            raise InputError("--memory-budget is for nodes that this command starts; give it to each shardnode of "
                             "--nodes")  # fmt: skip
        if not 0 < self.kv_budget_bytes < 1 << 63:
            raise InputError(f"--kv-budget-bytes is {self.kv_budget_bytes}; it must be above 0 and fit 63 bits")
        wire_item_bytes(self.wire_dtype)
        select_device(self.use_gpu)  # refuses what cannot be, before anything is started


HEAD_READS_IN_FLIGHT = 2
"""Unless the disk was measured or the user says otherwise."""


@dataclass(frozen=True, kw_only=True)
class LocalMemory:
    """What each process of this machine gets."""

    head: WeightMemory
    nodes: tuple[WeightMemory, ...]
    """Per rank."""
    kv_bytes: tuple[int, ...]
    """Per rank: most bytes of keys and values."""


def local_memory(
    run: RunOptions,
    own_directory: Path,
    own_manifest: SliceManifest,
    node_directories: Sequence[Path],
    local: LocalNodes | None,
) -> LocalMemory:
    """Decide how much memory the head and each node that is started here get, and how all of them read.

    Raises: BudgetTooSmall: names the least that would do; SliceError and its kinds.
    """
    head_tiles = sweep_tiles(own_directory, own_manifest)
    head_memory = replace(run.weights, window_bytes=_head_window_bytes(run.weights, head_tiles))
    if not head_memory.reads_in_flight:
        # Nodes rest while the head is computed, so the other cores may copy for it, where the page cache is used.
        head_memory = replace(head_memory, reads_in_flight=HEAD_READS_IN_FLIGHT)
    count = len(node_directories)
    if local is None:
        return LocalMemory(head=head_memory, nodes=(), kv_bytes=())
    manifests = [read_manifest(directory) for directory in node_directories]
    node_tiles = [sweep_tiles(*pair) for pair in zip(node_directories, manifests, strict=True)]
    kv_bytes: tuple[int, ...] = (run.kv_budget_bytes,) * count
    node_memories = (run.weights,) * count
    if run.memory_budget is not None:
        keep_heap_small()
        measured_bytes = own_memory().counted_bytes + local.imported_memory().counted_bytes
        shares = share_memory(
            parse_budget(run.memory_budget, taken_bytes=measured_bytes),
            measured_bytes=measured_bytes,
            nodes=manifests,
            node_tile_bytes=[[tile.byte_count for tile in tiles] for tiles in node_tiles],
            head_tile_bytes=[tile.byte_count for tile in head_tiles],
            position_capacity=run.position_capacity,
            row_count=min(run.position_capacity, rows_per_sweep(manifests[0].spec.hidden_size)),
        )
        kv_bytes = shares.kv_bytes
        node_memories = tuple(replace(run.weights, budget_bytes=share) for share in shares.weight_bytes)
        head_memory = replace(head_memory, budget_bytes=shares.head_bytes)
    read_alike = _reading(node_directories[0], [*node_tiles, head_tiles], node_memories[0])
    return LocalMemory(head=read_alike(head_memory), nodes=tuple(map(read_alike, node_memories)), kv_bytes=kv_bytes)


def _head_window_bytes(memory: WeightMemory, tiles: Sequence[TileRange]) -> int | None:
    """Return the head's window where --window-bytes is given: enough for it, and not more than it has use for."""
    if memory.window_bytes is None:
        return None
    sizes = [tile.byte_count for tile in tiles]
    return max(least_weight_bytes(sizes), min(memory.window_bytes, 4 * max(sizes)))


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
