"""Opens a slice's tiles in the order of a sweep: streamed through a window, resident, or some of each.

Covers: sizes of window and resident part, whether the page cache is used, which tiles a sweep walks over.
Does not cover: scheduling and reading (window.py, reader.py), which slice (manifest.py), where tiles lie
(tile_places.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.machine.free_memory import free_memory_bytes
from common.weights.budgeted_tiles import BudgetedTiles
from common.weights.disk_profile import disk_profile
from common.weights.manifest import EMBEDDING_FILE, NORMS_FILE, SliceManifest
from common.weights.pinning import plan_weights
from common.weights.reader import ReadInto, ReadSettings, TileRange, read_into
from common.weights.tile_places import tile_places
from common.weights.tile_source import ResidentTiles, StreamedTiles, TileSource
from common.weights.weight_memory import WeightMemory

CACHED_SHARE = 0.5
"""Of the free memory: what a slice may take for the page cache to be worth using; the rest is for others."""
CACHED_READS_IN_FLIGHT, CACHED_READ_BYTES = 1, 512 << 10
"""From the page cache a read is a copy by a processor, which the kernel lets nobody else have meanwhile: one at a
time, a twentieth of a millisecond each, made SmolLM2 on one node of two cores 30 % faster than two of whole tiles."""
PROBE_FROM_BYTES = 256 << 20
"""Smaller slices are read with the defaults: a second of measuring would be most of their reading."""


def sweep_tiles(directory: Path, manifest: SliceManifest) -> list[TileRange]:
    """Return every tile that a sweep walks over, in order; the coordinator's are those of its head."""
    places = tile_places(directory, manifest)
    return [tile for name, found in places.items() if name not in (EMBEDDING_FILE, NORMS_FILE) for tile in found]


def largest_block_bytes(manifest: SliceManifest) -> int:
    """Return the size of the slice's largest block."""
    layouts = manifest.layouts()
    return max((sum(tile.byte_count for tile in layout.tiles) for layout in layouts.values()), default=0)


def open_tiles(
    directory: Path, manifest: SliceManifest, memory: WeightMemory, *, block_bytes: int, read_into: ReadInto = read_into
) -> TileSource:
    """Open a slice's tiles with a window for blocks of `block_bytes`.

    Raises: SliceError and its kinds: files cannot be opened; WindowTooSmall: two tiles do not fit.
    """
    tiles = sweep_tiles(directory, manifest)
    sizes = [tile.byte_count for tile in tiles]
    settings = _read_settings(directory, tiles, memory)
    window_bytes = memory.wanted_window_bytes(
        block_bytes=block_bytes, tile_bytes=max(sizes, default=0), reads_in_flight=settings.reads_in_flight
    )
    plan = plan_weights(sizes, window_bytes=window_bytes, budget_bytes=memory.budget_bytes)
    if len(plan.resident) == len(tiles):
        return ResidentTiles(tiles, settings=settings, read_into=read_into)
    if not plan.resident:
        return StreamedTiles(tiles, window_bytes=plan.window_bytes, settings=settings, read_into=read_into)
    return BudgetedTiles(
        tiles, resident=plan.resident, window_bytes=plan.window_bytes, settings=settings, read_into=read_into
    )


def bypasses_page_cache(memory: WeightMemory, total_bytes: int) -> bool:
    """Tell whether weights of `total_bytes` are to be read past the page cache.

    They are where it cannot help: under a budget, since the cache would be memory above the promise, and when the
    weights are so large that the cache would only push out what others need.
    """
    if memory.page_cache == "auto":
        return memory.budget_bytes is not None or total_bytes > CACHED_SHARE * free_memory_bytes()
    return memory.page_cache == "bypass"


def reads_past_cache(
    directory: Path, tiles: Sequence[TileRange], memory: WeightMemory, total_bytes: int
) -> tuple[int, int]:
    """Return reads in flight and bytes of one read: as the options say, else as the disk under `tiles` was measured.

    Both may be 0, for the defaults, when the `total_bytes` that will be read are too few to measure for.
    """
    if total_bytes < PROBE_FROM_BYTES or (memory.reads_in_flight and memory.read_bytes):
        return memory.reads_in_flight, memory.read_bytes
    profile = disk_profile(directory, tiles)
    return memory.reads_in_flight or profile.reads_in_flight, memory.read_bytes or profile.read_bytes


def _read_settings(directory: Path, tiles: list[TileRange], memory: WeightMemory) -> ReadSettings:
    total_bytes = sum(tile.byte_count for tile in tiles)
    bypasses = bypasses_page_cache(memory, total_bytes)
    if bypasses:
        reads_in_flight, read_bytes = reads_past_cache(directory, tiles, memory, total_bytes)
    else:
        reads_in_flight = memory.reads_in_flight or CACHED_READS_IN_FLIGHT
        read_bytes = memory.read_bytes or CACHED_READ_BYTES
    default = ReadSettings()
    return ReadSettings(
        bypass_page_cache=bypasses,
        reads_in_flight=reads_in_flight or default.reads_in_flight,
        read_bytes=read_bytes or default.read_bytes,
        timeout_seconds=memory.read_timeout_seconds,
    )
