"""The slices on this node's disk: whole ones, one that is arriving, and which of them is served after a restart.

    DATA_DIR/slices/ID/                     whole: manifest.json and block files, as any slice directory, nothing else
    DATA_DIR/slices/arriving/ID/            description.json, NAME.part, and for each verified file NAME, NAME.digests
    DATA_DIR/serving.json                   the slice that is served

Covers: what has arrived and can be gone on from, room on the disk, publishing in one step, removing.
Does not cover: the bytes of one file (arriving_file.py), messages (listeners/slice_service.py), serving (serving.py).
A peer names a slice by its hash and a file by what follows from its description: neither is taken for a path unchecked.
Threads: any; one transfer at a time, the newest, so that a link that is not known to be dead yet holds nobody up.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from common.errors import DiskFull, InputError, SliceError
from common.machine.durable_files import replace_private, sync_directory
from common.program.sizes import format_size
from common.weights.manifest import MANIFEST_NAME, FileEntry, SliceManifest, read_manifest
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import FileLayout
from shardnode.slices.arriving_file import ArrivingFile

SLICES_DIRECTORY, ARRIVING_DIRECTORY, SERVING_FILE = "slices", "arriving", "serving.json"
DESCRIPTION_FILE, PART, DIGESTS = "description.json", ".part", ".digests"
MAX_DESCRIPTION_BYTES = 16 << 20
SPARE_BYTES = 16 << 20
"""Left free on the disk: a system without a free byte works badly."""
_SLICE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class HeldSlice:
    """One slice here."""

    slice_id: str
    byte_count: int
    is_whole: bool


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """What is here of one file: its digests once it was verified."""

    byte_count: int
    digests: FileEntry | None = None


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What is here of a slice that was offered."""

    slice_id: str
    is_whole: bool
    files: dict[str, Arrived]


class SliceStore:
    """The slices below one directory."""

    def __init__(self, data_directory: Path) -> None:
        """Raises: InputError: the directory cannot be written."""
        self._serving_file = data_directory / SERVING_FILE
        self._slices = data_directory / SLICES_DIRECTORY
        self._arriving = self._slices / ARRIVING_DIRECTORY
        self._lock = threading.RLock()
        self._transfer: ArrivingFile | None = None
        self._make_directories()

    def held(self) -> list[HeldSlice]:
        """Return every slice that is here, whole ones first. Raises: InputError: the directory cannot be written."""
        with self._lock:
            self._make_directories()  # somebody may have removed them while the node runs
            return [
                HeldSlice(slice_id=path.name, byte_count=_bytes_below(path), is_whole=base == self._slices)
                for base in (self._slices, self._arriving)
                for path in sorted(base.iterdir())
                if _SLICE_ID.fullmatch(path.name)
            ]

    @property
    def free_bytes(self) -> int:
        """Bytes that more slices may take."""
        return max(0, shutil.disk_usage(self._slices).free - SPARE_BYTES)

    def whole(self, slice_id: str) -> Path:
        """Return the directory of a whole slice. Raises: InputError: no name of a slice; SliceError: it is not here."""
        path = self._slices / _checked(slice_id)
        if not (path / MANIFEST_NAME).exists():
            raise SliceError(f"slice {slice_id[:12]} is not on this node; send it with `coordinator-cli load`")
        return path

    def offer(self, description_text: bytes, *, verify: bool) -> Offer:
        """Make ready for a slice and return what is here of it.

        Raises: InputError: a description that no node's slice can have; DiskFull: there is no room for the rest.
        """
        description = _parse(description_text)
        slice_id = description.slice_id
        with self._lock:
            self._make_directories()
            self._end_transfer()
            self._forget_other_transfers(slice_id)
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
            layout = description.layouts().get(name)
            if layout is None:
                raise InputError(f"slice {slice_id[:12]} has no file '{name[:60]}'")
            path = self._arriving / slice_id / name
            self._transfer = ArrivingFile(
                part=path.with_name(name + PART), path=path, digests=path.with_name(name + DIGESTS),
                layout=layout, first_byte=first_byte,
            )  # fmt: skip
            return self._transfer

    def publish(self, slice_id: str) -> None:
        """Make a slice whole in one step. Raises: SliceError: it was not offered, or files are missing."""
        with self._lock:
            if (self._slices / _checked(slice_id) / MANIFEST_NAME).exists():
                return
            description = self._offered(slice_id)
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

    def remove(self, slice_id: str) -> None:
        """Remove a slice, or what has arrived of it. Raises: InputError: no name of a slice."""
        with self._lock:
            self._end_transfer()
            if self.served() == _checked(slice_id):
                self.set_served("")
            for base in (self._slices, self._arriving):
                shutil.rmtree(base / slice_id, ignore_errors=True)

    def served(self) -> str:
        """Return the slice that was served last; empty for none."""
        try:
            slice_id = json.loads(self._serving_file.read_bytes())["slice_id"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return slice_id if isinstance(slice_id, str) and _SLICE_ID.fullmatch(slice_id) else ""

    def set_served(self, slice_id: str) -> None:
        """Remember which slice is served; empty for none."""
        replace_private(self._serving_file, json.dumps({"slice_id": slice_id}).encode())

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

    def _offered(self, slice_id: str) -> SliceDescription:
        try:
            description = _parse((self._arriving / _checked(slice_id) / DESCRIPTION_FILE).read_bytes())
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


def _parse(text: bytes) -> SliceDescription:
    if len(text) > MAX_DESCRIPTION_BYTES:
        raise InputError("the description of a slice is longer than any can be")
    try:
        description = SliceDescription.from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the description of a slice is no JSON: {error}") from error
    if description.rank < 0:
        raise InputError("the coordinator's own slice does not belong on a node")
    return description


def _checked(slice_id: str) -> str:
    if not _SLICE_ID.fullmatch(slice_id):
        raise InputError(f"'{slice_id[:60]}' names no slice")
    return slice_id


def _digests(path: Path) -> FileEntry | None:
    try:
        return FileEntry.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
