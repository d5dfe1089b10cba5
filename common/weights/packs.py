"""Which tiles does a slice consist of, whatever its plan, and how do tiles lie in a pack? Pure.

Covers: a tile's identity, packs of tiles and their names, where a tile lies, as text that is read with distrust.
Does not cover: packs on disk (pack_store.py), the text of a manifest (manifest.py), where tensors lie in a tile
(slice_format.py, encoded_format.py).

A tile's key is the hash of all that decides its bytes, and no plan is in it: two plans that cut a cell of the grid
alike have the same tile. A pack is a safetensors file of whole tiles in the order of a sweep, and never changes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import InputError
from common.model.model_spec import canonical_json
from common.weights.checksums import XXH3, Checksum
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import PAGE_BYTES, FileLayout, TileLayout

PACK_BYTES = 128 << 20
"""Of a pack, about: what is sent again when one arrives damaged, and small enough for packs of dead tiles to go."""
MAX_TILES_PER_SLICE = 1 << 18
"""Above any real model's: what a hostile description claims must not make us hash without end."""
STORE_DIRECTORY = "store"
"""Beside the slices whose tiles it has."""
SUFFIX = ".safetensors"
_PACK = re.compile(r"[0-9a-f]{32}(-[0-9]{1,4})?\.safetensors")
_SHA256, _XXH3 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class SliceTile:
    """One tile of a slice."""

    number: int
    """In the slice, from 0, in the order of a sweep."""
    file: str
    """The block that it is part of, by the name that `SliceDescription.layouts` gives it."""
    layout: TileLayout
    key: str
    """SHA-256, in hex, of all that decides its bytes."""


@dataclass(frozen=True, kw_only=True)
class StoredTile:
    """Where a tile lies, and its digests (hex)."""

    pack: str
    offset: int
    sha256: str
    xxh3: str

    @property
    def checksum(self) -> Checksum:
        """What its bytes must give at their first read."""
        return Checksum(kind=XXH3, value=self.xxh3)


def slice_tiles(description: SliceDescription) -> list[SliceTile]:
    """Return the tiles of a slice whose matrices have encodings of their own. Raises: InputError: too many."""
    tiles: list[SliceTile] = []
    for file, layout in description.layouts().items():
        if len(tiles) + len(layout.tiles) > MAX_TILES_PER_SLICE:
            raise InputError(f"a slice of more than {MAX_TILES_PER_SLICE} tiles; make tiles larger")
        tiles += [
            SliceTile(number=number, file=file, layout=tile, key=_key(description, file, tile))
            for number, tile in enumerate(layout.tiles, start=len(tiles))
        ]
    return tiles


def _key(description: SliceDescription, file: str, tile: TileLayout) -> str:
    """Return a tile's key. The dtype is in it since a matrix can be quantized here or as its file has it."""
    body = [
        description.model_identity, description.dtype, file, tile.first, tile.count, tile.kv_first, tile.kv_count,
        tile.skip, [[place.name, place.dtype, list(place.shape)] for place in tile.tensors],
    ]  # fmt: skip
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def packed(tiles: Iterable[SliceTile], pack_bytes: int = PACK_BYTES) -> Iterator[list[SliceTile]]:
    """Yield tiles by packs of about `pack_bytes`. What is left of them makes the same packs as it did before."""
    pack: list[SliceTile] = []
    bytes_in_pack = 0
    for tile in tiles:
        if pack and bytes_in_pack + tile.layout.byte_count > pack_bytes:
            yield pack
            pack, bytes_in_pack = [], 0
        pack.append(tile)
        bytes_in_pack += tile.layout.byte_count
    if pack:
        yield pack


def pack_layout(tiles: Sequence[SliceTile]) -> FileLayout:
    """Return how tiles lie in a pack."""
    return FileLayout(tiles=tuple(tile.layout for tile in tiles), names=tuple(map(_tile_name, tiles)))


def pack_name(keys: Sequence[str], edition: int = 0) -> str:
    """Return what the pack of these tiles is called. Args: edition: above 0 for one that is made again."""
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:32] + (f"-{edition}" if edition else "") + SUFFIX


def is_pack_name(name: object) -> bool:
    """Tell whether a pack could be called so: a plain file name of ours."""
    return isinstance(name, str) and _PACK.fullmatch(name) is not None


def stored_tile(pack: Any, offset: Any, sha256: Any, xxh3: Any) -> StoredTile:
    """Return what a text on disk says of a tile. Raises: ValueError, TypeError: it makes no sense."""
    if not is_pack_name(pack):
        raise ValueError(f"{str(pack)[:60]!r} is no name of a pack")
    if not isinstance(offset, int) or isinstance(offset, bool) or offset < PAGE_BYTES or offset % PAGE_BYTES:
        raise ValueError(f"a tile at {str(offset)[:30]}, which is no whole page behind a header")
    if not _SHA256.fullmatch(sha256) or not _XXH3.fullmatch(xxh3):  # TypeError: no text
        raise ValueError("a digest that is none")
    return StoredTile(pack=pack, offset=offset, sha256=sha256, xxh3=xxh3)


def stored_text(tiles: Mapping[str, Sequence[StoredTile]], pack_bytes: Mapping[str, int]) -> dict[str, Any]:
    """Return plain JSON values that `stored_of` reads back: of each tile its pack's number, offset and digests."""
    numbers = {name: number for number, name in enumerate(sorted(pack_bytes))}
    rows = {
        file: [[numbers[tile.pack], tile.offset, tile.sha256, tile.xxh3] for tile in found]
        for file, found in sorted(tiles.items())
    }
    return {"packs": [[name, pack_bytes[name]] for name in numbers], "tiles": rows}


def stored_of(
    value: Any, layouts: Mapping[str, FileLayout]
) -> tuple[dict[str, tuple[StoredTile, ...]], dict[str, int]]:
    """Read what `stored_text` wrote, of a slice of these layouts; return its tiles by block, and sizes of packs.

    Raises: ValueError, KeyError, TypeError, IndexError: it makes no sense.
    """
    packs = [(name, int(size)) for name, size in value["packs"]]
    if not all(is_pack_name(name) for name, _ in packs):
        raise ValueError("a pack is called as none can be")
    if set(value["tiles"]) != set(layouts):
        raise ValueError("it does not list the blocks that its plan needs")
    tiles: dict[str, tuple[StoredTile, ...]] = {}
    for file, layout in layouts.items():
        found = []
        for tile, (number, offset, sha256, xxh3) in zip(layout.tiles, value["tiles"][file], strict=True):
            name, size = packs[number]
            found.append(stored_tile(name, offset, sha256, xxh3))
            if offset + tile.byte_count > size:
                raise ValueError(f"a tile ends behind the end of {name}")
        tiles[file] = tuple(found)
    return tiles, dict(packs)


def _tile_name(tile: SliceTile) -> str:
    """Return the beginning of the names that the tile's tensors have in a pack."""
    return f"{tile.file.removesuffix(SUFFIX)}.{tile.layout.first}.{tile.key[:8]}"
