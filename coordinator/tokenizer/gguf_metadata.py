"""Reads the keys and values at the head of a GGUF file, and nothing after them.

The gguf package does this in 2 s for a vocabulary of 49,000 tokens; every start would pay for it.
Does not cover: tensors (slicing), what the keys mean (gguf_vocab.py).
Source: the GGUF specification, versions 2 and 3.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import CheckpointError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEY_COUNT = 1 << 16
MAX_ARRAY_DEPTH = 4
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letter for each value type of fixed size."""


def read_gguf_metadata(path: Path) -> dict[str, Any]:
    """Return every key of the file; arrays become lists, strings are decoded.

    Raises: CheckpointError: not a GGUF file of a known version, or cut short.
    """
    try:
        with path.open("rb") as file:
            return _Cursor(file, path.stat().st_size).metadata()
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"'{path}' is not a usable GGUF file: {error}") from error


class _Cursor:
    """A place in the file; every length is checked against what is left before anything is read."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._left_bytes = size_bytes

    def metadata(self) -> dict[str, Any]:
        if self._bytes(4) != MAGIC:
            raise ValueError("it does not begin with 'GGUF'")
        version, _tensor_count, key_count = self._numbers("IQQ")
        if version not in VERSIONS:
            raise ValueError(f"format version {version} is not one of {VERSIONS}")
        if key_count > MAX_KEY_COUNT:
            raise ValueError(f"it claims {key_count} keys")
        found: dict[str, Any] = {}
        for _ in range(key_count):
            key = self._string()
            (value_type,) = self._numbers("I")
            found[key] = self._value(value_type, depth=0)
        return found

    def _value(self, value_type: int, depth: int) -> Any:
        if value_type in SCALARS:
            return self._numbers(SCALARS[value_type])[0]
        if value_type == STRING:
            return self._string()
        if value_type != ARRAY or depth == MAX_ARRAY_DEPTH:
            raise ValueError(f"a value of unknown type {value_type}")
        item_type, count = self._numbers("IQ")
        if count > self._left_bytes:
            raise ValueError(f"an array of {count} values is longer than the file")
        if item_type in SCALARS:
            return list(self._numbers(f"{count}{SCALARS[item_type]}"))
        if item_type == STRING:
            return [self._string() for _ in range(count)]
        return [self._value(item_type, depth + 1) for _ in range(count)]

    def _numbers(self, letters: str) -> tuple[Any, ...]:
        layout = "<" + letters
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))

    def _string(self) -> str:
        byte_count = int.from_bytes(self._bytes(8), "little")
        return self._bytes(byte_count).decode("utf-8")

    def _bytes(self, byte_count: int) -> bytes:
        if byte_count > self._left_bytes:
            raise ValueError("it is cut short")
        self._left_bytes -= byte_count
        return self._file.read(byte_count)
