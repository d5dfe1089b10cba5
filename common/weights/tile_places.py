"""Where do the tiles of a slice lie on disk: in block files of its own, or in packs that it shares with other plans?

Does not cover: which tiles a sweep walks over (open_tiles.py), packs (packs.py), manifests (manifest.py).
"""

from __future__ import annotations

from pathlib import Path

from common.weights.manifest import SliceManifest
from common.weights.pack_store import store_of
from common.weights.reader import TileRange


def tile_places(directory: Path, manifest: SliceManifest) -> dict[str, list[TileRange]]:
    """Return the tiles of every block of a slice, by the blocks' names, in the order of a sweep.

    Raises: SliceCorrupt: a tile is not made of whole pages.
    """
    layouts = manifest.layouts()
    if manifest.encodings is not None:
        store = store_of(directory)
        return {
            name: [
                TileRange(
                    path=store / found.pack, offset=found.offset, byte_count=tile.byte_count, checksum=found.checksum
                )
                for tile, found in zip(layout.tiles, manifest.tiles[name], strict=True)
            ]
            for name, layout in layouts.items()
        }
    return {
        name: [
            TileRange(path=directory / name, offset=offset, byte_count=tile.byte_count, checksum=checksum)
            for tile, offset, checksum in zip(
                layout.tiles, layout.tile_offsets, manifest.files[name].tile_checksums, strict=True
            )
        ]
        for name, layout in layouts.items()
    }
