"""Slices on this node's disk whose tiles lie in packs: of one that is offered only the tiles that no other one brought.

    DATA_DIR/slices/store/                  packs of tiles, whole (common/weights/pack_store.py)
    DATA_DIR/slices/ID/manifest.json        a slice that is whole: where its tiles lie
    DATA_DIR/slices/arriving/ID/            description.json, and PACK.part of what is arriving

Covers: which tiles are lacking and in which packs they are to come, a pack's arrival, the manifest, tiles that no slice
needs any more and may stay for another plan. Does not cover: whose turn it is, slices of one dtype (slice_store.py).
Threads: slice_store.py lets one in at a time; a pack that arrives is put into place by its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from common.errors import DiskFull, InputError, SliceError
from common.machine.durable_files import replace_private, sync_directory
from common.program.sizes import format_size
from common.weights.manifest import MANIFEST_NAME, FileEntry, SliceManifest, read_manifest
from common.weights.pack_store import PART, PackStore, Place, found_in
from common.weights.packs import STORE_DIRECTORY, SliceTile, StoredTile, pack_layout, pack_name, packed, slice_tiles
from common.weights.repacking import repack, tell_manifest
from common.weights.slice_description import SliceDescription
from shardnode.slices.arriving_file import ArrivingFile
from shardnode.slices.slice_offer import SLICE_ID, LackingPack, Offer, description_of

DESCRIPTION_FILE = "description.json"


class PackedSlices:
    """What lies in packs below one directory."""

    def __init__(self, slices: Path, arriving: Path) -> None:
        self._slices, self._arriving = slices, arriving
        self._store = PackStore(slices / STORE_DIRECTORY)
        self._store.clean()
        for left in slices.glob(f"*/.{MANIFEST_NAME}-*"):  # a manifest that was to say where tiles have moved
            left.unlink(missing_ok=True)
        self._sizes: dict[str, tuple[int, int]] = {}
        self._kept_bytes: tuple[list[int], int] = [], 0

    @property
    def store_bytes(self) -> int:
        """Bytes of all packs."""
        return self._store.total_bytes

    def slice_bytes(self, slice_id: str) -> int:
        """Return the bytes of a whole slice's tiles, most of which may be other slices' too; 0: it is of one dtype."""
        path = self._slices / slice_id / MANIFEST_NAME
        with suppress(OSError, SliceError):
            changed = path.stat().st_mtime_ns
            if self._sizes.get(slice_id, (0, 0))[0] != changed:
                manifest = read_manifest(path.parent)
                tiles = [] if manifest.encodings is None else slice_tiles(manifest)
                self._sizes[slice_id] = changed, sum(tile.layout.byte_count for tile in tiles)
            return self._sizes[slice_id][1]
        return 0

    def offer(
        self, description: SliceDescription, text: bytes, *, verify: bool, free_bytes: Callable[[], int]
    ) -> Offer:
        """Make ready for a slice and return what of it is lacking.

        Args: text: the description's; free_bytes: what packs may still take. Raises: DiskFull, InputError.
        """
        slice_id, tiles = description.slice_id, slice_tiles(description)
        wrong = self._store.damaged({tile.key for tile in tiles}) if verify else set()
        there = self._store.tiles()
        lacking = [tile for tile in tiles if tile.key not in there]
        if not lacking and not wrong and self._is_whole(slice_id):
            return Offer(slice_id=slice_id, is_whole=True)
        shutil.rmtree(self._slices / slice_id, ignore_errors=True)
        directory = self._arriving / slice_id
        packs = [self._lacking_pack(directory, pack) for pack in packed(lacking)]
        self._make_room(packs, lacking, _places(tiles, there), free_bytes)
        directory.mkdir(mode=0o700, exist_ok=True)
        replace_private(directory / DESCRIPTION_FILE, text)
        wanted = {pack.name + PART for pack in packs}
        for path in directory.glob(f"*{PART}"):  # of tiles that have come otherwise since
            if path.name not in wanted:
                path.unlink()
        return Offer(slice_id=slice_id, is_whole=False, packs=packs)

    def receive(self, description: SliceDescription, name: str, first_byte: int) -> ArrivingFile:
        """Begin or go on with a pack. Raises: InputError: it is not lacking so, or has not got so far."""
        there = self._store.tiles()
        lacking = [tile for tile in slice_tiles(description) if tile.key not in there]
        tiles = next((tiles for tiles in packed(lacking) if _name(tiles) == name), None)
        if tiles is None:
            raise InputError(f"slice {description.slice_id[:12]} lacks no pack '{name[:60]}'")
        part = self._arriving / description.slice_id / (name + PART)

        def land(entry: FileEntry) -> None:
            digests = zip(entry.tile_sha256, entry.tile_xxh3, strict=True)
            self._store.directory.mkdir(mode=0o700, exist_ok=True)
            self._store.publish(name, description.model_identity, tiles, digests, part)

        return ArrivingFile(part=part, name=name, layout=pack_layout(tiles), first_byte=first_byte, land=land)

    def publish(self, description: SliceDescription) -> None:
        """Make a slice whole in one step. Raises: SliceError: tiles are missing."""
        slice_id, directory = description.slice_id, self._arriving / description.slice_id
        manifest = SliceManifest.of_found(description, slice_tiles(description), found_in(self._store.packs()))
        replace_private(directory / MANIFEST_NAME, manifest.text().encode())
        read_manifest(directory)
        for path in directory.iterdir():  # the manifest says all of it
            if path.name != MANIFEST_NAME:
                path.unlink()
        os.rename(directory, self._slices / slice_id)
        sync_directory(self._slices)

    def drop(self, keep_bytes: int, model_identity: str = "") -> None:
        """Remove tiles that no slice needs until no more than `keep_bytes` of them are left.

        Args: model_identity: only those of this model.
        """
        self._store.drop(self._needed(), keep_bytes, {model_identity} if model_identity else None)
        with suppress(OSError):  # a full disk, say: then they stay in their packs for now
            self._repack(keep_bytes - sum(self.kept().values()) if keep_bytes else 0, model_identity)

    def kept(self) -> dict[str, int]:
        """Return the bytes of tiles that no slice needs, by model."""
        kept: dict[str, int] = {}
        for pack in self._store.unneeded(self._needed()):
            kept[pack.model_identity] = kept.get(pack.model_identity, 0) + pack.tile_bytes
        return kept

    def kept_bytes(self) -> int:
        """Return the bytes of all of them, looked at again when something has changed. From any thread."""
        with suppress(OSError):  # it changes just now
            changed = [path.stat().st_mtime_ns for path in (self._slices, self._arriving)]
            if self._store.directory.exists():
                changed.append(self._store.directory.stat().st_mtime_ns)
            if changed != self._kept_bytes[0]:
                self._kept_bytes = changed, sum(self.kept().values())
        return self._kept_bytes[1]

    def _repack(self, keep_bytes: int, model_identity: str) -> None:
        """Have what slices need moved out of packs that have more than `keep_bytes` of other tiles."""
        moved = repack(self._store, self._needed(), keep_bytes, model_identity=model_identity)
        if moved:
            for path in self._slices.iterdir():
                if SLICE_ID.fullmatch(path.name):
                    with suppress(SliceError):
                        tell_manifest(path, moved, self._store, is_private=True)
            needed = self._needed()
            for name in {pack for pack, _ in moved} - {pack for pack, _ in needed}:
                self._store.remove(name)

    def _lacking_pack(self, directory: Path, tiles: list[SliceTile]) -> LackingPack:
        part = directory / (_name(tiles) + PART)
        size = part.stat().st_size if part.exists() else 0
        arrived_bytes = min(size, pack_layout(tiles).file_bytes)
        return LackingPack(name=_name(tiles), byte_count=arrived_bytes, tiles=[tile.number for tile in tiles])

    def _make_room(
        self, packs: list[LackingPack], lacking: list[SliceTile], taken: set[Place], free_bytes: Callable[[], int]
    ) -> None:
        """Have tiles go that no slice needs, if room is wanted. Raises: DiskFull: there is none."""
        whole_bytes = sum(pack_layout(tiles).file_bytes for tiles in packed(lacking))
        missing_bytes = whole_bytes - sum(pack.byte_count for pack in packs)
        if missing_bytes > free_bytes():
            self._store.make_room(self._needed() | taken, missing_bytes - free_bytes())
        if missing_bytes > free_bytes():
            raise DiskFull(f"the slice needs {format_size(missing_bytes)} more and its disk has "
                           f"{format_size(free_bytes())} free; free some, `coordinator-cli unload` a model, or "
                           "give this node a smaller share")  # fmt: skip

    def _is_whole(self, slice_id: str) -> bool:
        try:
            return read_manifest(self._slices / slice_id).slice_id == slice_id
        except SliceError:
            return False

    def _needed(self) -> set[Place]:
        """Return where the tiles lie that slices here need, whole ones and one that is arriving."""
        needed: set[Place] = set()
        for path in self._slices.iterdir():
            if SLICE_ID.fullmatch(path.name):
                with suppress(SliceError):
                    manifest = read_manifest(path)
                    needed.update((tile.pack, tile.offset) for block in manifest.tiles.values() for tile in block)
        for path in self._arriving.iterdir():
            with suppress(OSError, InputError):
                description = description_of((path / DESCRIPTION_FILE).read_bytes())
                if description.encodings is not None:
                    needed |= _places(slice_tiles(description), self._store.tiles())
        return needed


def _name(tiles: Collection[SliceTile]) -> str:
    return pack_name([tile.key for tile in tiles])


def _places(tiles: Collection[SliceTile], there: dict[str, StoredTile]) -> set[Place]:
    """Return where those of the tiles lie that are here."""
    found = (there[tile.key] for tile in tiles if tile.key in there)
    return {(tile.pack, tile.offset) for tile in found}
