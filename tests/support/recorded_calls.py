"""Calls of the library that are written down, to be made by other builds of it and on other processors (replay.c).

Covers: buffers, addresses in them, calls; making them here, through ctypes; reading what came out elsewhere.
Does not cover: which calls are worth making (kernel_calls.py).

A recording is numbers of 64 bits, little-endian: counts of buffers, links and calls; buffers, each its size and its
bytes; links; calls. Weights that are to come from the page cache come from the recording itself.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 24
SIZE_BYTES = 8
NAME_BYTES = 32
NUMBER, ADDRESS, FRACTION = range(3)


class Place(NamedTuple):
    """An address: so many bytes into a buffer."""

    buffer: int
    at: int = 0


DESCRIPTOR = Place(-1)
"""Stands for the recording's open file, in a structure."""


class Laid(NamedTuple):
    """Bytes for a buffer, and the addresses that belong into them."""

    content: bytes
    links: list[tuple[int, Place]]


def laid(structure: type[ctypes.Structure], /, **fields: Laid | Place | float | None) -> Laid:
    """Return a structure with its fields set, addresses and structures in it among them; the others are zero."""
    made, links = structure(), []
    inner: list[tuple[int, bytes]] = []
    for name, value in fields.items():
        offset = getattr(structure, name).offset
        if isinstance(value, Place):
            links.append((offset, value))
        elif isinstance(value, Laid):
            inner.append((offset, value.content))
            links += [(offset + at, place) for at, place in value.links]
        elif value is not None:
            setattr(made, name, value)
    content = bytearray(made)
    for offset, part in inner:
        content[offset : offset + len(part)] = part
    return Laid(bytes(content), links)


def in_a_row(parts: Sequence[Laid | Place]) -> Laid:
    """Return an array of structures, or of addresses."""
    content, links = b"", []
    for part in parts:
        one = Laid(bytes(ctypes.sizeof(ctypes.c_void_p)), [(0, part)]) if isinstance(part, Place) else part
        links += [(len(content) + at, place) for at, place in one.links]
        content += one.content
    return Laid(content, links)


@dataclass(frozen=True, slots=True)
class Results:
    """What calls answered, and all buffers afterwards, addresses in them zero."""

    answers: list[float]
    buffers: list[bytes]


def _with_one_nan(content: bytes) -> bytes:
    """Put one pattern for everything that is not a number: processors differ in which they make."""
    if len(content) % 4:
        return content
    bits: NDArray[np.uint32] = np.frombuffer(content, np.uint32)
    return np.where(bits & 0x7FFFFFFF > 0x7F800000, np.uint32(0x7FC00000), bits).tobytes()


@dataclass(slots=True)
class Calls:
    """A recording that is being made."""

    buffers: list[bytes] = field(default_factory=list)
    links: list[tuple[int, int, int, int]] = field(default_factory=list)
    calls: list[tuple[str, tuple[Place | float | None, ...]]] = field(default_factory=list)

    def put(self, content: bytes | NDArray[Any] | Laid) -> Place:
        """Make a buffer and return where it begins."""
        if isinstance(content, Laid):
            self.links += [(len(self.buffers), at, *place) for at, place in content.links]
            content = content.content
        self.buffers.append(content if isinstance(content, bytes) else content.tobytes())
        return Place(len(self.buffers) - 1)

    def offset_in_file(self, place: Place) -> int:
        """Return where a place of a buffer will lie in the recording."""
        before = self.buffers[: place.buffer]
        return HEADER_BYTES + sum(map(len, before)) + SIZE_BYTES * (len(before) + 1) + place.at

    def call(self, name: str, *arguments: Place | float | None) -> None:
        """Note one call of shardmesh_`name`; a Python float is a fraction, an int a whole number, None is NULL."""
        self.calls.append((name, arguments))

    def write(self, path: Path) -> None:
        """Write everything down."""
        with path.open("wb") as file:
            file.write(struct.pack("<3q", len(self.buffers), len(self.links), len(self.calls)))
            for content in self.buffers:
                file.write(struct.pack("<q", len(content)) + content)
            file.writelines(struct.pack("<4q", *link) for link in self.links)
            for name, arguments in self.calls:
                file.write(struct.pack(f"<{NAME_BYTES}sq", name.encode(), len(arguments)))
                file.writelines(_packed(argument) for argument in arguments)

    def replay(self, functions: ctypes.CDLL, path: Path) -> Results:
        """Make all calls here, with buffers of their own; `path` is where the recording was written."""
        with path.open("rb") as file:
            memory = [ctypes.create_string_buffer(content, max(1, len(content))) for content in self.buffers]
            for buffer, at, target, target_at in self.links:
                link = (
                    struct.pack("=i", file.fileno())
                    if target < 0
                    else struct.pack("=q", ctypes.addressof(memory[target]) + target_at)
                )
                ctypes.memmove(ctypes.addressof(memory[buffer]) + at, link, len(link))
            answers = [self._made(functions, memory, *call) for call in self.calls]
        for buffer, at, target, _ in self.links:
            ctypes.memset(ctypes.addressof(memory[buffer]) + at, 0, 4 if target < 0 else 8)
        return Results(answers, [made.raw[: len(content)] for made, content in zip(memory, self.buffers, strict=True)])

    def _made(
        self, functions: ctypes.CDLL, memory: list[Any], name: str, arguments: tuple[Place | float | None, ...]
    ) -> float:
        function = getattr(functions, f"shardmesh_{name}")
        values: list[Any] = []
        for argument, kind in zip(arguments, function.argtypes, strict=True):
            if not isinstance(argument, Place):
                values.append(argument)
                continue
            address = ctypes.c_void_p(ctypes.addressof(memory[argument.buffer]) + argument.at)
            values.append(address if kind is ctypes.c_void_p else ctypes.cast(address, kind))
        return float(function(*values) or 0)

    def results(self, path: Path) -> Results:
        """Read what replay.c wrote."""
        content = path.read_bytes()
        answers = struct.unpack_from(f"<{len(self.calls)}d", content)
        buffers, at = [], 8 * len(self.calls)
        for buffer in self.buffers:
            buffers.append(content[at : at + len(buffer)])
            at += len(buffer)
        assert at == len(content)
        return Results(list(answers), buffers)

    def differences(self, found: Results, expected: Results) -> list[str]:
        """Say which calls answered something else or, to the bit, left something else in their buffers."""
        wrong = [
            f"call {number}, {name}, answered {mine} instead of {theirs}"
            for number, ((name, _), mine, theirs) in enumerate(
                zip(self.calls, found.answers, expected.answers, strict=True)
            )
            if mine != theirs
        ]
        for number, (mine, theirs) in enumerate(zip(found.buffers, expected.buffers, strict=True)):
            if mine != theirs and _with_one_nan(mine) != _with_one_nan(theirs):
                users = [name for name, arguments in self.calls if Place(number) in arguments]
                wrong.append(f"buffer {number} of {', '.join(users) or 'a structure'} differs")
        return wrong


def _packed(argument: Place | float | None) -> bytes:
    if isinstance(argument, Place):
        return struct.pack("<3qd", ADDRESS, *argument, 0.0)
    if argument is None or isinstance(argument, int):
        return struct.pack("<3qd", NUMBER, argument or 0, 0, 0.0)
    return struct.pack("<3qd", FRACTION, 0, 0, argument)
