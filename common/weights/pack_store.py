"""Packs of tiles on this disk: which tiles are here, where, and which packs may go?

    STORE/NAME.safetensors      a pack, whole: it is never written to again
    STORE/NAME.json             its index: tiles by their keys, with digests; written before the pack gets its name
    STORE/NAME.safetensors.part a pack that is being written

Covers: a pack's last step into place, what a kill leaves, tiles that are damaged, packs that nobody needs.
Does not cover: which tiles a slice has (packs.py), writing and receiving bytes (coordinator/slicing/pack_writer.py,
shardnode/slices/arriving_file.py), who needs which tiles (coordinator/slicing/stored_plans.py,
shardnode/slices/packed_slices.py).
Threads: one at a time; whoever has a store sees to it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.machine.durable_files import replace_readable, sync_directory
from common.model.model_spec import canonical_json
from common.weights.packs import STORE_DIRECTORY, SUFFIX, SliceTile, StoredTile, pack_layout, pack_name, stored_tile

PART = ".part"
_INDEX = ".json"
_OURS = re.compile(
    r"(?P<hidden>\.)?(?P<stem>[0-9a-f]{32}(-[0-9]{1,4})?)\.(safetensors(?P<part>\.part)?|json(?(hidden)-.*))"
)
"""The hidden ones are indices on their way, of `replace_readable`."""
HASHED_AT_ONCE = 1 << 20

Place = tuple[str, int]
"""A tile's pack and offset."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """One pack that is whole."""

    name: str
    model_identity: str
    size_bytes: int
    tiles: Mapping[str, tuple[StoredTile, int]]
    """By key: where it is, and its bytes."""
    written_at: float
    """Of the clock, to tell old from new."""

    @property
    def tile_bytes(self) -> int:
        """Bytes of its tiles, by which packs are weighed: as slices are, that have no headers."""
        return sum(byte_count for _, byte_count in self.tiles.values())


Found = Mapping[str, tuple[StoredTile, Pack]]
"""By key: where a tile is, and its pack."""


def found_in(packs: Iterable[Pack]) -> Found:
    """Return the tiles of packs; of one that several have, the last one's."""
    return {key: (tile, pack) for pack in packs for key, (tile, _) in pack.tiles.items()}


class PackStore:
    """The packs in one directory, which is made when the first one comes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> Path:
        return self.directory / name

    def part(self, name: str) -> Path:
        """Return where a pack is written before it is whole."""
        return self.directory / (name + PART)

    def packs(self) -> list[Pack]:
        """Return the packs that are whole, the oldest first."""
        found = [self._read(path, name) for path, name, _ in self._files() if path.suffix == _INDEX]
        return sorted((pack for pack in found if pack is not None), key=lambda pack: (pack.written_at, pack.name))

    def tiles(self) -> dict[str, StoredTile]:
        """Return every tile that is here, by key; of two of a kind the newer one."""
        return {key: tile for pack in self.packs() for key, (tile, _) in pack.tiles.items()}

    def free_name(self, keys: Sequence[str]) -> str:
        """Return a name for a pack of these tiles that no pack has."""
        names = (pack_name(keys, edition) for edition in itertools.count())
        return next(name for name in names if not self.path(name).exists())

    def publish(self, name: str, model_identity: str, tiles: Sequence[SliceTile], digests: Iterable[tuple[str, str]],
                part: Path) -> None:  # fmt: skip
        """Put a pack that was written and synced into place, in one step.

        Args: digests: of each tile, SHA-256 and XXH3, in hex; part: where it was written. Raises: OSError.
        """
        layout = pack_layout(tiles)
        rows = [
            [tile.key, offset, tile.layout.byte_count, sha256, xxh3]
            for tile, offset, (sha256, xxh3) in zip(tiles, layout.tile_offsets, digests, strict=True)
        ]
        self.put(name, model_identity, rows, layout.file_bytes, part)

    def put(self, name: str, model_identity: str, rows: list[list[Any]], size_bytes: int, part: Path | None = None
            ) -> None:  # fmt: skip
        """Do as `publish`. Args: rows: key, offset, bytes, SHA-256 and XXH3 of each tile; part: if not the store's."""
        self._write_index(name, {"model": model_identity, "size_bytes": size_bytes, "tiles": rows})
        os.rename(part or self.part(name), self.path(name))
        sync_directory(self.directory)

    def adopt(self, other: Path) -> None:
        """Have the packs of another store on the same disk here too, as the same files: they never change."""
        for pack in PackStore(other).packs():
            self.directory.mkdir(exist_ok=True)
            for path in (PackStore(other).path(pack.name), PackStore(other)._index(pack.name)):
                with suppress(OSError):  # it is here, or the disk knows no second name: it is written again then
                    os.link(path, self.directory / path.name)

    def clean(self, but: Collection[str] = ()) -> None:
        """Remove what a kill has left: parts, packs without an index or of another size, indices of nothing.

        Args: but: packs whose parts stay.
        """
        whole = {pack.name for pack in self.packs()}
        for path, name, is_part in self._files():
            if name not in (but if is_part else whole):
                path.unlink(missing_ok=True)

    @property
    def total_bytes(self) -> int:
        """Bytes of all packs, those that are being written here too."""
        sizes = []
        for path, _, _ in self._files():
            with suppress(FileNotFoundError):  # it went just now
                sizes.append(path.stat().st_size)
        return sum(sizes)

    @property
    def has_parts(self) -> bool:
        """Whether somebody writes a pack, or was killed while he did."""
        return any(is_part for _, _, is_part in self._files())

    def remove(self, name: str) -> None:
        """Remove a pack; its bytes are gone once nobody reads it any more."""
        self.path(name).unlink(missing_ok=True)
        self._index(name).unlink(missing_ok=True)

    def damaged(self, wanted: Collection[str]) -> set[str]:
        """Return which of the tiles of these keys are not what they were, by every byte's SHA-256, and forget them."""
        wrong: set[str] = set()
        for pack in self.packs():
            bad = {
                key for key, (tile, byte_count) in pack.tiles.items()
                if key in wanted and self._sha256(tile, byte_count) != tile.sha256
            }  # fmt: skip
            if bad:
                self._forget(pack, bad)
                wrong |= bad
        return wrong

    def unneeded(self, needed: Collection[Place]) -> Iterator[Pack]:
        """Yield the packs of which no tile is needed, the oldest first."""
        for pack in self.packs():
            if not any((tile.pack, tile.offset) in needed for tile, _ in pack.tiles.values()):
                yield pack

    def drop(self, needed: Collection[Place], keep_bytes: int, models: Collection[str] | None = None) -> int:
        """Remove the oldest packs of which nothing is needed until the others have no more than `keep_bytes`.

        Args: models: only packs of these. Returns: the bytes of tiles that have gone.
        """
        packs = [pack for pack in self.unneeded(needed) if models is None or pack.model_identity in models]
        return self._remove_oldest(packs, sum(pack.tile_bytes for pack in packs) - keep_bytes)

    def make_room(self, needed: Collection[Place], wanted_bytes: int) -> int:
        """Remove the oldest packs of which nothing is needed until so much is free; return what it is."""
        return self._remove_oldest(self.unneeded(needed), wanted_bytes)

    def _remove_oldest(self, packs: Iterable[Pack], wanted_bytes: int) -> int:
        freed_bytes = 0
        for pack in packs:
            if freed_bytes >= wanted_bytes:
                break
            self.remove(pack.name)
            freed_bytes += pack.tile_bytes
        return freed_bytes

    def _forget(self, pack: Pack, keys: Collection[str]) -> None:
        rows = [
            [key, tile.offset, byte_count, tile.sha256, tile.xxh3]
            for key, (tile, byte_count) in pack.tiles.items() if key not in keys
        ]  # fmt: skip
        if rows:
            self._write_index(pack.name, {"model": pack.model_identity, "size_bytes": pack.size_bytes, "tiles": rows})
        else:
            self.remove(pack.name)

    def _sha256(self, tile: StoredTile, byte_count: int) -> str:
        hasher = hashlib.sha256()
        try:
            with open(self.path(tile.pack), "rb", buffering=0) as file:
                file.seek(tile.offset)
                while byte_count and (data := file.read(min(HASHED_AT_ONCE, byte_count))):
                    hasher.update(data)
                    byte_count -= len(data)
        except OSError:  # what cannot be read is not there
            return ""
        return hasher.hexdigest()

    def _index(self, name: str) -> Path:
        return self.path(name).with_suffix(_INDEX)

    def _write_index(self, name: str, body: dict[str, Any]) -> None:
        text = json.dumps({**body, "body_sha256": _digest(body)})
        replace_readable(self._index(name), text.encode())

    def _read(self, path: Path, name: str) -> Pack | None:
        """Return the pack of an index; None: it is not whole, or its index is damaged, which is as good as none."""
        try:
            body = json.loads(path.read_bytes())
            if body.pop("body_sha256") != _digest(body):
                return None
            about = self.path(name).stat()
            tiles = {
                str(key): (stored_tile(name, offset, sha256, xxh3), int(byte_count))
                for key, offset, byte_count, sha256, xxh3 in body["tiles"]
            }
            end = max((tile.offset + byte_count for tile, byte_count in tiles.values()), default=0)
            if not end <= about.st_size == body["size_bytes"]:
                return None
            return Pack(
                name=name, model_identity=str(body["model"]), size_bytes=about.st_size, tiles=tiles,
                written_at=about.st_mtime,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _files(self) -> list[tuple[Path, str, bool]]:
        """Return our files, each with its pack's name, and whether it is not yet what it will be; others' are left."""
        paths: list[Path] = []
        with suppress(FileNotFoundError):
            paths = sorted(self.directory.iterdir())
        matches = [(path, match) for path in paths if (match := _OURS.fullmatch(path.name))]
        return [(path, match["stem"] + SUFFIX, bool(match["hidden"] or match["part"])) for path, match in matches]


def store_of(directory: Path) -> Path:
    """Return where the packs of a slice's tiles are: beside its directory, or beside the one that has all its plans."""
    beside = directory.parent / STORE_DIRECTORY
    return beside if beside.is_dir() else directory.parent.parent / STORE_DIRECTORY


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()
