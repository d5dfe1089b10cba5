"""The messages of a round that most rounds are, in a few bytes of fixed places: the next block of a sweep, its answer.

Covers: writing and reading them, with distrust. Does not cover: tensors' types and shapes, which the session knows
(tensor_codec.py), every other message (protos/shardmesh/v1/shard.proto, which also says where which byte lies).

protobuf takes about 30 microseconds of each round on a coordinator of four nodes, to say again what the first round of
the sweep has said. A packed message begins with a zero byte, which no message of protobuf does.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from common.errors import InputError, NodeFault
from common.weights.slice_format import ATTENTION, FFN

_NEXT = struct.Struct("<BBBxIqq")
_DONE = struct.Struct("<BBxxxxxxqqqqqqqq")
NEXT_BYTES, DONE_BYTES = _NEXT.size, _DONE.size
_IN_MEMORY, TELLS_WAITS = 1, 2
KIND_NUMBERS = {ATTENTION: 1, FFN: 2}
_KINDS = {number: kind for kind, number in KIND_NUMBERS.items()}


class NextBlock(NamedTuple):
    """A block for the rows that the last whole message of the same sweep has named."""

    call_id: int
    sweep_id: int
    kind: str
    layer: int
    is_in_memory: bool
    tells_waits: bool


class BlockDone(NamedTuple):
    """The answer to it; its names are those of BlockResult."""

    call_id: int
    ready_nanoseconds: int
    compute_nanoseconds: int
    tile_wait_nanoseconds: int
    handling_nanoseconds: int = 0
    queue_nanoseconds: int = 0
    core_wait_nanoseconds: int = 0
    starved_nanoseconds: int = 0
    is_in_memory: bool = False
    refused: tuple[()] = ()
    """Nobody is refused in such an answer."""


def is_packed(message: bytes | bytearray | memoryview) -> bool:
    """Tell whether a message is of these and none of protobuf."""
    return len(message) > 0 and message[0] == 0


def pack_next(block: NextBlock) -> bytes:
    """Return the beginning of a request; the rows' bytes follow, unless they lie in memory."""
    flags = block.is_in_memory * _IN_MEMORY | block.tells_waits * TELLS_WAITS
    return _NEXT.pack(0, KIND_NUMBERS[block.kind], flags, block.layer, block.call_id, block.sweep_id)


def unpack_next(message: bytes | bytearray | memoryview) -> NextBlock:
    """Return what a request asks; its rows begin at NEXT_BYTES. Raises: InputError: it is none."""
    if len(message) < NEXT_BYTES:
        raise InputError(f"a packed round of {len(message)} bytes; it has {NEXT_BYTES} or more")
    _, number, flags, layer, call_id, sweep_id = _NEXT.unpack_from(message)
    kind = _KINDS.get(number)
    if kind is None or flags & ~(_IN_MEMORY | TELLS_WAITS):
        raise InputError(f"a packed round of kind {number} with flags {flags}, which nobody knows")
    return NextBlock(call_id, sweep_id, kind, layer, bool(flags & _IN_MEMORY), bool(flags & TELLS_WAITS))


def next_block(message: memoryview, sweep_id: int) -> tuple[str, int, int] | None:
    """Return kind, layer and call of a request for the next block of a sweep, whose rows follow; None: it is none.

    Args: message: of NEXT_BYTES or more.
    """
    first, number, flags, layer, call_id, of_sweep = _NEXT.unpack_from(message)
    kind = _KINDS.get(number)
    return (kind, layer, call_id) if kind is not None and not first and not flags and of_sweep == sweep_id else None


def done_bytes(*numbers: int) -> bytes:
    """Return what `pack_done` does of an answer whose partial sum follows. Args: the fields before is_in_memory."""
    return _DONE.pack(0, 0, *numbers)


def pack_done(done: BlockDone) -> bytes:
    """Return the beginning of an answer; the partial sum's bytes follow, unless they lie in memory."""
    return _DONE.pack(0, done.is_in_memory, *done[:8])


def unpack_done(message: bytes | bytearray, who: str) -> BlockDone:
    """Return what an answer says; its partial sum begins at DONE_BYTES. Raises: NodeFault: it is none of `who`'s."""
    if len(message) < DONE_BYTES or message[1] > 1:
        raise NodeFault(f"{who} sent a message that cannot be read")
    _, is_in_memory, *numbers = _DONE.unpack_from(message)
    return BlockDone._make([*numbers, bool(is_in_memory), ()])
