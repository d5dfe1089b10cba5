"""The slices on this node's disk: whole ones, one that is arriving, and which of them is served after a restart.

    DATA_DIR/slices/ID/                     whole: manifest.json and block files, as any slice directory, nothing else
    DATA_DIR/slices/arriving/ID/            description.json, NAME.part, and for each verified file NAME, NAME.digests
    DATA_DIR/serving.json                   the slice that is served

Covers: what has arrived and can be gone on from, room on the disk, publishing in one step, removing.
Does not cover: the bytes of one file (arriving_file.py), slices whose tiles lie in packs (packed_slices.py), messages
(listeners/slice_service.py), serving (serving.py).
A peer names a slice by its hash and a file by what follows from its description: neither is taken for a path unchecked.
Threads: any; one transfer at a time, the newest, so that a link that is not known to be dead yet holds nobody up.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

from common.errors import DiskFull, InputError, ShardmeshError, SliceError
from common.machine.durable_files import replace_private, sync_directory
from common.program.sizes import format_size
from common.weights.manifest import MANIFEST_NAME, FileEntry, SliceManifest, read_manifest
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import FileLayout
from shardnode.slices.arriving_file import ArrivingFile
from shardnode.slices.packed_slices import DESCRIPTION_FILE, PackedSlices
from shardnode.slices.slice_offer import SLICE_ID, Arrived, HeldSlice, Offer, checked_id, description_of

SLICES_DIRECTORY, ARRIVING_DIRECTORY, SERVING_FILE = "slices", "arriving", "serving.json"
PART, DIGESTS = ".part", ".digests"
SPARE_BYTES = 16 << 20
"""Left free on the disk: a system without a free byte works badly."""


class SliceStore:
    """The slices below one directory."""

    def __init__(self, data_directory: Path, keep_bytes: int | None = None) -> None:
        """Open them.

        Args: keep_bytes: of tiles that no slice needs, what may stay; None: as much as the largest slice here.
        Raises: InputError: the directory cannot be written.
        """
        self._serving_file = data_directory / SERVING_FILE
        self._slices = data_directory / SLICES_DIRECTORY
        self._arriving = self._slices / ARRIVING_DIRECTORY
        self._lock = threading.RLock()
        self._transfer: ArrivingFile | None = None
        self._make_directories()
        self._keep_bytes = keep_bytes
        self._packed = PackedSlices(self._slices, self._arriving)

    def held(self) -> list[HeldSlice]:
        """Return every slice that is here, whole ones first. Raises: InputError: the directory cannot be written."""
        with self._lock:
            self._make_directories()  # somebody may have removed them while the node runs
            return [
                HeldSlice(slice_id=path.name, byte_count=self._bytes_of(path), is_whole=base == self._slices)
                for base in (self._slices, self._arriving)
                for path in sorted(base.iterdir())
                if SLICE_ID.fullmatch(path.name)
            ]

    @property
    def free_bytes(self) -> int:
        """Bytes that more slices may take."""
        return max(0, shutil.disk_usage(self._slices).free - SPARE_BYTES)

    def whole(self, slice_id: str) -> Path:
        """Return the directory of a whole slice. Raises: InputError: no name of a slice; SliceError: it is not here."""
        path = self._slices / checked_id(slice_id)
        if not (path / MANIFEST_NAME).exists():
            raise SliceError(f"slice {slice_id[:12]} is not on this node; send it with `coordinator-cli load`")
        return path

    def offer(self, description_text: bytes, *, verify: bool) -> Offer:
        """Make ready for a slice and return what is here of it.

        Raises: InputError: a description that no node's slice can have; DiskFull: there is no room for the rest.
        """
        description = description_of(description_text)
        slice_id = description.slice_id
        with self._lock:
            self._make_directories()
            self._end_transfer()
            self._forget_other_transfers(slice_id)
            if description.encodings is not None:
                return self._packed.offer(
                    description, description_text, verify=verify, free_bytes=lambda: self.free_bytes
                )
            if self._is_whole(slice_id, description, verify=verify):
                return Offer(slice_id=slice_id, is_whole=True, files={})
            layouts = description.layouts()
            files = {name: self._arrived(slice_id, name, layout) for name, layout in layouts.items()}
            missing_bytes = sum(
                layout.file_bytes - min(layout.file_bytes, files[name].byte_count) for name, layout in layouts.items()
            )
            if missing_bytes > self.free_bytes:
                raise DiskFull(f"the slice needs {format_size(missing_bytes)} more and its disk has "
                               f"{format_size(self.free_bytes)} free; free some, `coordinator-cli unload` a model, or "
                               "give this node a smaller share")  # fmt: skip
            directory = self._arriving / slice_id
            directory.mkdir(mode=0o700, exist_ok=True)
            replace_private(directory / DESCRIPTION_FILE, description_text)
            present = {name: arrived for name, arrived in files.items() if arrived.byte_count}
            return Offer(slice_id=slice_id, is_whole=False, files=present)

    def receive(self, slice_id: str, name: str, first_byte: int) -> ArrivingFile:
        """Begin or go on with a file; an older transfer ends. Close what is returned.

        Raises: SliceError: the slice was not offered; InputError: it has no such file, or has not got so far.
        """
        with self._lock:
            self._end_transfer()
            description = self._offered(slice_id)
            if description.encodings is not None:
                self._transfer = self._packed.receive(description, name, first_byte)
            else:
                self._transfer = self._receive_file(description, name, first_byte)
            return self._transfer

    def publish(self, slice_id: str) -> None:
        """Make a slice whole in one step. Raises: SliceError: it was not offered, or files are missing."""
        with self._lock:
            if (self._slices / checked_id(slice_id) / MANIFEST_NAME).exists():
                return
            description = self._offered(slice_id)
            if description.encodings is not None:
                self._packed.publish(description)
                return
            directory = self._arriving / slice_id
            entries = {}
            for name in description.layouts():
                entry = _digests(directory / (name + DIGESTS))
                if entry is None or not (directory / name).exists():
                    raise SliceError(f"slice {slice_id[:12]} lacks {name}; send it first")
                entries[name] = entry
            manifest = SliceManifest.of(description, entries)
            replace_private(directory / MANIFEST_NAME, manifest.text().encode())
            read_manifest(directory)
            whole = self._slices / slice_id
            os.rename(directory, whole)
            sync_directory(self._slices)
            for scaffold in (DESCRIPTION_FILE, *(name + DIGESTS for name in entries)):  # the manifest says all of it
                (whole / scaffold).unlink(missing_ok=True)

    def remove(self, slice_id: str, *, keep_tiles: bool = False) -> None:
        """Remove a slice, or what has arrived of it.

        Args: keep_tiles: of those in packs that no other slice needs, as many stay as may be kept; else none.
        Raises: InputError: no name of a slice.
        """
        with self._lock:
            self._end_transfer()
            if self.served() == checked_id(slice_id):
                self.set_served("")
            about = self._description(slice_id)
            largest_bytes = max((one.byte_count for one in self.held()), default=0)
            for base in (self._slices, self._arriving):
                shutil.rmtree(base / slice_id, ignore_errors=True)
            if about is not None and about.encodings is not None:
                if keep_tiles:
                    self._packed.drop(largest_bytes if self._keep_bytes is None else self._keep_bytes)
                else:
                    self._packed.drop(0, about.model_identity)

    def remove_kept(self, model_identity: str) -> None:
        """Remove what no slice needs of a model's tiles."""
        with self._lock:
            self._packed.drop(0, model_identity)

    def kept_tiles(self) -> dict[str, int]:
        """Return the bytes of tiles that no slice needs, by model."""
        with self._lock:
            return self._packed.kept()

    @property
    def pack_bytes(self) -> int:
        """Bytes of all packs of tiles."""
        return self._packed.store_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes of tiles that no slice needs. Waits for nobody: while a slice changes it may be as it was."""
        return self._packed.kept_bytes()

    def served(self) -> str:
        """Return the slice that was served last; empty for none."""
        try:
            slice_id = json.loads(self._serving_file.read_bytes())["slice_id"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return slice_id if isinstance(slice_id, str) and SLICE_ID.fullmatch(slice_id) else ""

    def set_served(self, slice_id: str) -> None:
        """Remember which slice is served; empty for none."""
        replace_private(self._serving_file, json.dumps({"slice_id": slice_id}).encode())

    def _bytes_of(self, path: Path) -> int:
        """Return what lies in a slice's directory, or of one in packs the bytes of its tiles."""
        return self._packed.slice_bytes(path.name) or _bytes_below(path)

    def _make_directories(self) -> None:
        try:
            self._arriving.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {self._slices.parent}: {error.strerror}; choose another --data-dir"
                             ) from error  # fmt: skip

    def _is_whole(self, slice_id: str, description: SliceDescription, *, verify: bool) -> bool:
        """Tell whether a slice needs nothing; a damaged one, or one to be verified, is arriving from now on."""
        directory = self._slices / slice_id
        if not directory.exists():
            return False
        if not verify:
            try:
                return read_manifest(directory).slice_id == slice_id
            except SliceError:
                pass  # what is there of it may still be good, and is looked at again
        (directory / MANIFEST_NAME).unlink(missing_ok=True)
        shutil.rmtree(self._arriving / slice_id, ignore_errors=True)
        os.rename(directory, self._arriving / slice_id)
        for name in description.layouts():
            (self._arriving / slice_id / (name + DIGESTS)).unlink(missing_ok=True)
        return False

    def _arrived(self, slice_id: str, name: str, layout: FileLayout) -> Arrived:
        """Return what is here of a file, left in one of two states: verified, or a part of it."""
        path = self._arriving / slice_id / name
        part, digests = path.with_name(name + PART), path.with_name(name + DIGESTS)
        entry = _digests(digests)
        if entry is not None and path.exists() and path.stat().st_size == entry.size_bytes == layout.file_bytes:
            part.unlink(missing_ok=True)
            return Arrived(byte_count=layout.file_bytes, digests=entry)
        digests.unlink(missing_ok=True)
        if path.exists():
            os.replace(path, part)
        size = part.stat().st_size if part.exists() else 0
        return Arrived(byte_count=min(size, layout.file_bytes))

    def _receive_file(self, description: SliceDescription, name: str, first_byte: int) -> ArrivingFile:
        slice_id = description.slice_id
        layout = description.layouts().get(name)
        if layout is None:
            raise InputError(f"slice {slice_id[:12]} has no file '{name[:60]}'")
        path = self._arriving / slice_id / name
        part, digests = path.with_name(name + PART), path.with_name(name + DIGESTS)
        path.unlink(missing_ok=True)  # verified once, and yet sent again
        digests.unlink(missing_ok=True)

        def land(entry: FileEntry) -> None:
            replace_private(digests, json.dumps(entry.to_json()).encode())
            os.rename(part, path)

        return ArrivingFile(part=part, name=name, layout=layout, first_byte=first_byte, land=land)

    def _description(self, slice_id: str) -> SliceDescription | None:
        """Return what a slice is that is here, or has been offered; None: nobody can tell."""
        with suppress(ShardmeshError):
            return read_manifest(self._slices / slice_id)
        with suppress(ShardmeshError):
            return self._offered(slice_id)
        return None

    def _offered(self, slice_id: str) -> SliceDescription:
        try:
            description = description_of((self._arriving / checked_id(slice_id) / DESCRIPTION_FILE).read_bytes())
        except OSError:
            raise SliceError(f"slice {slice_id[:12]} was not offered to this node") from None
        if description.slice_id != slice_id:
            raise SliceError(f"slice {slice_id[:12]} was offered with another description; offer it again")
        return description

    def _end_transfer(self) -> None:
        if self._transfer is not None:
            self._transfer.supersede()
            self._transfer = None

    def _forget_other_transfers(self, slice_id: str) -> None:
        for path in self._arriving.iterdir():
            if path.name != slice_id:
                shutil.rmtree(path, ignore_errors=True)


def _digests(path: Path) -> FileEntry | None:
    try:
        return FileEntry.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
