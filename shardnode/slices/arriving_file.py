"""One file of a slice, or one pack, while it arrives: bytes in order into NAME.part, verified, then into its place.

Covers: going on from what is there, refusing more bytes than the file has, a full disk, digests, tiles' XXH3,
durability.
Does not cover: which file (slice_store.py), which pack (packed_slices.py), messages (listeners/slice_service.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import DiskFull, InputError, ProtocolError, SliceCorrupt, SliceError
from common.machine.durable_files import is_full
from common.weights.checksums import TileHasher
from common.weights.manifest import FileEntry
from common.weights.slice_format import FileLayout

HASHED_AT_ONCE = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ArrivingFile:
    """The receiving end of one file. Close it."""

    def __init__(
        self, *, part: Path, name: str, layout: FileLayout, first_byte: int, land: Callable[[FileEntry], None]
    ) -> None:  # fmt: skip
        """Open the part and drop what lies behind `first_byte`.

        Args: name: for people; land: puts the part that is whole, verified and synced into its place, durably.
        Raises: InputError: so much has not arrived.
        """
        self._part, self._name, self._land = part, name, land
        self._file_bytes, self._tile_count = layout.file_bytes, len(layout.tiles)
        self._lock = threading.Lock()
        self._is_superseded = False
        self._descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        arrived_bytes = os.fstat(self._descriptor).st_size
        if not 0 <= first_byte <= min(arrived_bytes, self._file_bytes):
            self.close()
            raise InputError(f"{name}: {arrived_bytes} bytes have arrived, so it cannot go on from {first_byte}")
        os.ftruncate(self._descriptor, first_byte)
        self._hash, self._tiles = hashlib.sha256(), TileHasher(layout)
        self._position = 0
        while self._position < first_byte:
            data = os.pread(self._descriptor, min(HASHED_AT_ONCE, first_byte - self._position), self._position)
            self._count(data)

    def supersede(self) -> None:
        """Have no more written here: another transfer goes on instead."""
        with self._lock:
            self._is_superseded = True

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises: InputError: more than the file has; DiskFull: nothing of this file is kept then; ProtocolError: another
        transfer has taken over; SliceError: the disk failed.
        """
        with self._lock:
            self._check_current()
            if self._position + len(chunk) > self._file_bytes:
                raise InputError(f"{self._name} has {self._file_bytes} bytes and more were sent")
            try:
                left = memoryview(chunk)
                while left:
                    written = os.pwrite(self._descriptor, left, self._position)
                    self._count(left[:written])
                    left = left[written:]
            except OSError as error:
                raise self._failure(error) from error

    def finish(self, sha256: str, tile_sha256: Sequence[str]) -> None:
        """Verify the file and put it under its name, durably. Its tiles' XXH3 are of the bytes that are verified here.

        Raises: SliceCorrupt: it is not what was sent, and is dropped; InputError: bytes or digests are missing.
        """
        with self._lock:
            self._check_current()
            if len(tile_sha256) != self._tile_count or not all(map(_SHA256.fullmatch, (sha256, *tile_sha256))):
                raise InputError(f"{self._name} has {self._tile_count} tiles, each with a SHA-256")
            if self._position != self._file_bytes:
                raise InputError(f"{self._name} has {self._file_bytes} bytes and {self._position} were sent")
            if self._hash.hexdigest() != sha256:
                self._part.unlink(missing_ok=True)
                raise SliceCorrupt(f"{self._name} has arrived with other bytes than were sent")
            entry = FileEntry(
                size_bytes=self._file_bytes, sha256=sha256, tile_sha256=tuple(tile_sha256),
                tile_xxh3=self._tiles.tiles(),
            )  # fmt: skip
            try:
                os.fsync(self._descriptor)
                self._land(entry)
            except OSError as error:
                raise self._failure(error) from error

    def close(self) -> None:
        """Let go of the file; what has arrived stays. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _count(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._tiles.update(data)
        self._position += len(data)

    def _check_current(self) -> None:
        if self._is_superseded:
            raise ProtocolError(f"another transfer of {self._name} has taken over")

    def _failure(self, error: OSError) -> SliceError | DiskFull:
        if is_full(error):
            self._part.unlink(missing_ok=True)  # the disk is needed by others; whole files stay
            return DiskFull(f"the disk ran full while {self._name} arrived; free some space and load again")
        return SliceError(f"cannot write {self._name}: {error.strerror}")
