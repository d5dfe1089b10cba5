"""What a tile's bytes must give when they are first read: XXH3 where the manifest has it, else SHA-256.

Covers: both functions behind one name, comparing piece by piece, checksums of a file's tiles from its bytes in order.
Does not cover: where they are kept (manifest.py), who compares when (reader.py and coordinator/engine/ends.py).

XXH3 finds what disks and memory do to bytes, at ten times the speed of SHA-256; it is no proof against somebody who
wants a collision. Whoever writes a slice has compared the SHA-256 of its bytes, or made them, before it writes XXH3.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Protocol

import xxhash

from common.weights.slice_format import FileLayout

SHA256, XXH3 = "SHA-256", "XXH3"
"""Kinds, as people are told of them."""

Bytes = bytes | bytearray | memoryview


class _Hasher(Protocol):
    def update(self, data: Bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Checksum:
    """What one function gives for the right bytes, in hex."""

    kind: str
    value: str


class Comparison:
    """Compares bytes with their checksum, and counts the processor time that it takes."""

    def __init__(self, expected: Checksum) -> None:
        self._expected = expected
        self._hasher: _Hasher = hashlib.sha256() if expected.kind == SHA256 else xxhash.xxh3_64()
        self.nanoseconds = 0

    def update(self, data: Bytes) -> None:
        """Take the next bytes. Others may run meanwhile: both functions let go of the GIL."""
        start = time.thread_time_ns()
        self._hasher.update(data)
        self.nanoseconds += time.thread_time_ns() - start

    def agrees(self) -> bool:
        """Tell whether these were the right bytes."""
        return self._hasher.hexdigest() == self._expected.value


def xxh3_of(data: Bytes) -> str:
    """Return the XXH3 (64 bits, hex) of bytes."""
    return xxhash.xxh3_64(data).hexdigest()


class TileHasher:
    """The XXH3 of every tile of a file, from the file's bytes in order."""

    def __init__(self, layout: FileLayout) -> None:
        self._sizes = [len(layout.header), *(tile.byte_count for tile in layout.tiles)]
        self._found: list[str] = []
        self._left = self._sizes[0]
        self._hasher = xxhash.xxh3_64()

    def update(self, data: Bytes) -> None:
        """Take the next bytes; more than the file has are left out."""
        rest = memoryview(data)
        while rest and self._left:
            part = rest[: self._left]
            self._hasher.update(part)
            self._left -= len(part)
            rest = rest[len(part) :]
            if not self._left:
                self._begin_next()

    def tiles(self) -> tuple[str, ...]:
        """Return them, of the tiles whose bytes have all come."""
        return tuple(self._found[1:])

    def _begin_next(self) -> None:
        self._found.append(self._hasher.hexdigest())
        self._hasher = xxhash.xxh3_64()
        self._left = self._sizes[len(self._found)] if len(self._found) < len(self._sizes) else 0
