"""Packs of which little is needed: their needed tiles move into new packs, so that the others' room is free.

Covers: which packs are worth it, copying tiles with their names and a look at every byte, manifests of where tiles are
now. Does not cover: who needs what (coordinator/slicing/stored_plans.py, shardnode/slices/packed_slices.py).

A pack never changes, and whoever reads one reads on: new packs come first, then manifests change, then old packs go.
After a kill in between some tiles are there twice, and the older ones go as any that nobody needs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.machine.durable_files import replace_private, replace_readable
from common.weights.manifest import MANIFEST_NAME, read_manifest
from common.weights.pack_store import Pack, PackStore, Place
from common.weights.packs import StoredTile
from common.weights.slice_format import PAGE_BYTES

MOST_COPIED_BYTES = 256 << 20
"""At once, where somebody waits: a slow disk takes seconds for it. The next time goes on."""


def repack(
    store: PackStore, needed: Collection[Place], keep_bytes: int, *, model_identity: str = "",
    most_copied_bytes: int = MOST_COPIED_BYTES,
) -> dict[Place, StoredTile]:  # fmt: skip
    """Copy needed tiles out of packs that have others too, until those others have no more than `keep_bytes`.

    Args: model_identity: only out of packs of this model.
    Returns: where the tiles lie now, by where they lay; what needs them is to be told (`tell_manifest`), and then those
    packs can go. Raises: OSError: nothing is lost.
    """
    packs = [pack for pack in store.packs() if model_identity in ("", pack.model_identity)]
    mixed = [(pack, *_live_and_dead(pack, needed)) for pack in packs]
    mixed = [(pack, live, dead) for pack, live, dead in mixed if live and dead]
    dead_bytes = sum(dead for _, _, dead in mixed)
    moved: dict[Place, StoredTile] = {}
    for pack, live, dead in sorted(mixed, key=lambda one: one[1] / one[2]):
        if dead_bytes <= keep_bytes:
            break
        if live > most_copied_bytes:
            continue
        moved.update(_copied(store, pack, needed))
        dead_bytes -= dead
        most_copied_bytes -= live
    return moved


def tell_manifest(directory: Path, moved: Mapping[Place, StoredTile], store: PackStore, *, is_private: bool) -> None:
    """Have a slice's manifest say where its tiles lie now. Raises: SliceError: it cannot be read; OSError."""
    manifest = read_manifest(directory)
    tiles = {
        file: tuple(moved.get((tile.pack, tile.offset), tile) for tile in found)
        for file, found in manifest.tiles.items()
    }
    if tiles != manifest.tiles:
        used = {tile.pack for found in tiles.values() for tile in found}
        sizes = {name: store.path(name).stat().st_size for name in used}
        text = replace(manifest, tiles=tiles, pack_bytes=sizes).text().encode()
        (replace_private if is_private else replace_readable)(directory / MANIFEST_NAME, text)


def _live_and_dead(pack: Pack, needed: Collection[Place]) -> tuple[int, int]:
    """Return the bytes of a pack's needed tiles, and what it would have less without the others."""
    live = sum(size for tile, size in pack.tiles.values() if (tile.pack, tile.offset) in needed)
    first = min((tile.offset for tile, _ in pack.tiles.values()), default=pack.size_bytes)
    return live, pack.size_bytes - first - live


def _copied(store: PackStore, pack: Pack, needed: Collection[Place]) -> dict[Place, StoredTile]:
    """Write a pack of the needed tiles of another one; return where they are, or nothing if one is damaged."""
    tiles = [
        (key, tile, size) for key, (tile, size) in pack.tiles.items() if (tile.pack, tile.offset) in needed
    ]  # fmt: skip
    tiles.sort(key=lambda one: one[1].offset)
    name = store.free_name([key for key, _, _ in tiles])
    try:
        with open(store.path(pack.name), "rb") as source, open(store.part(name), "wb") as target:
            text = _header_for(*_header_of(source), [(tile.offset, size) for _, tile, size in tiles])
            target.write(text)
            offset, rows, found = len(text), [], {}
            for key, tile, size in tiles:
                source.seek(tile.offset)
                data = source.read(size)
                if hashlib.sha256(data).hexdigest() != tile.sha256:
                    return {}
                target.write(data)
                rows.append([key, offset, size, tile.sha256, tile.xxh3])
                found[tile.pack, tile.offset] = replace(tile, pack=name, offset=offset)
                offset += size
            target.flush()
            os.fsync(target.fileno())
        store.put(name, pack.model_identity, rows, offset)
        return found
    finally:
        store.part(name).unlink(missing_ok=True)


def _header_of(source: Any) -> tuple[dict[str, Any], int]:
    """Return what a safetensors file says of its tensors, and where their bytes begin."""
    size = int.from_bytes(source.read(8), "little")
    return json.loads(source.read(size)), 8 + size


def _header_for(header: dict[str, Any], data_start: int, ranges: list[tuple[int, int]]) -> bytes:
    """Return the header of a file that has the bytes of some ranges of another one, one after another."""
    entries: dict[str, Any] = {"__metadata__": header["__metadata__"]}
    entries.update(_moved_entries(header, data_start, ranges))
    text = json.dumps(entries, separators=(",", ":")).encode()
    padded = -(-(8 + len(text)) // PAGE_BYTES) * PAGE_BYTES - 8
    return padded.to_bytes(8, "little") + text.ljust(padded)


def _moved_entries(header: dict[str, Any], data_start: int, ranges: list[tuple[int, int]]) -> Iterator[tuple[str, Any]]:
    tensors = [(name, one) for name, one in header.items() if name != "__metadata__"]
    position = 0
    for offset, size in ranges:
        first = offset - data_start
        for name, one in tensors:
            start, stop = one["data_offsets"]
            if first <= start < first + size:
                moved = [start - first + position, stop - first + position]
                yield name, {**one, "data_offsets": moved}
        position += size
