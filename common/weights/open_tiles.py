"""Opens a slice's tiles in the order of a sweep: streamed through a window, or all resident.

Covers: the size of the window, paths and offsets of tiles, their digests.
Does not cover: scheduling and reading (window.py, reader.py), which slice (manifest.py).
"""

from __future__ import annotations

from pathlib import Path

from common.weights.manifest import EMBEDDING_FILE, NORMS_FILE, SliceManifest, file_layouts
from common.weights.tile_source import ResidentTiles, StreamedTiles, TileRange, TileSource


def sweep_tiles(directory: Path, manifest: SliceManifest) -> list[TileRange]:
    """Return every tile that a sweep walks over, in order; the coordinator's are those of its head."""
    layouts = file_layouts(manifest.spec, manifest.plan, manifest.rank, manifest.dtype, manifest.tile_bytes)
    tiles = []
    for name, layout in layouts.items():
        if name not in (EMBEDDING_FILE, NORMS_FILE):
            digests = manifest.files[name].tile_sha256
            for tile, offset, digest in zip(layout.tiles, layout.tile_offsets, digests, strict=True):
                tiles.append(TileRange(path=directory / name, offset=offset, byte_count=tile.byte_count, sha256=digest))
    return tiles


def window_bytes_for(manifest: SliceManifest, memory_window: int) -> int:
    """Return the window's size: room for `memory_window` of the largest blocks; 0 for 0."""
    layouts = file_layouts(manifest.spec, manifest.plan, manifest.rank, manifest.dtype, manifest.tile_bytes)
    block_bytes = [sum(tile.byte_count for tile in layout.tiles) for layout in layouts.values()]
    return memory_window * max(block_bytes, default=0)


def open_tiles(directory: Path, manifest: SliceManifest, window_bytes: int, timeout_seconds: float) -> TileSource:
    """Open a slice's tiles; `window_bytes` 0 keeps all of them in memory.

    Raises: SliceError and its kinds: files cannot be opened; WindowTooSmall: two tiles do not fit.
    """
    tiles = sweep_tiles(directory, manifest)
    if window_bytes == 0:
        return ResidentTiles(tiles, timeout_seconds=timeout_seconds)
    return StreamedTiles(tiles, window_bytes=window_bytes, timeout_seconds=timeout_seconds)
