"""The rows of a round, float32 where they are computed, as a session lets them travel, and back, with distrust.

    float32     as they are                          bfloat16    half the bytes
    int8        a prompt's rows in a quarter of them (eight_bits.py), a token's as they are

Covers: all of them, in messages of protobuf and in packed ones. Does not cover: who chooses (--wire-dtype).
"""

from __future__ import annotations

from common.weights.stored_numbers import Floats, narrowed, widened
from common.wire.eight_bits import rounded, unrounded
from common.wire.tensor_codec import INT8, check_type, decode_bytes, decode_tensor, encode_tensor, wire_number
from protos.shardmesh.v1 import tensor_pb2

FLOAT32 = "float32"
WIRE_DTYPES = (FLOAT32, "bfloat16", INT8)
"""By the names of --wire-dtype."""
TOKEN_ROWS = 32
"""Rounds of more rows are a prompt's, whose bytes are what a slow link is waited for. So are those of a sweep that
takes a prompt's rows along with other people's tokens."""


def dtype_on_the_wire(wire: str, row_count: int) -> str:
    """Return how so many rows travel, where a session has agreed on `wire`."""
    return FLOAT32 if wire == INT8 and row_count <= TOKEN_ROWS else wire


def is_float32(wire: str, row_count: int) -> bool:
    """Tell whether so many rows travel as they are."""
    return dtype_on_the_wire(wire, row_count) == FLOAT32


def row_bytes(rows: Floats, wire: str) -> bytes:
    """Return rows, float32 [row_count, width], as a packed message has them."""
    dtype = dtype_on_the_wire(wire, rows.shape[0])
    return rounded(rows) if dtype == INT8 else narrowed(rows, dtype).tobytes()


def rows_of(data: bytes | memoryview, shape: tuple[int, ...], wire: str) -> Floats:
    """Return the rows of a packed message, which may be written. Raises: ShapeError."""
    dtype = dtype_on_the_wire(wire, shape[0])
    return unrounded(data, shape) if dtype == INT8 else widened(decode_bytes(data, shape, dtype))


def encode_rows(rows: Floats, wire: str, into: tensor_pb2.Tensor) -> None:
    """Write rows, float32 [row_count, width], into a message."""
    dtype = dtype_on_the_wire(wire, rows.shape[0])
    if dtype != INT8:
        encode_tensor(narrowed(rows, dtype), into)
        return
    into.dtype = wire_number(INT8)
    into.shape.extend(rows.shape)
    into.data = rounded(rows)


def decode_rows(
    message: tensor_pb2.Tensor, shape: tuple[int, ...], wire: str, in_memory: Floats | None = None
) -> Floats:
    """Return the rows of a message, as tensor_codec.decode_tensor does. Raises: ShapeError."""
    dtype = FLOAT32 if message.is_in_memory else dtype_on_the_wire(wire, shape[0])
    if dtype != INT8:
        return widened(decode_tensor(message, shape=shape, dtype=dtype, in_memory=in_memory))
    check_type(message, shape, INT8)
    return unrounded(message.data, shape)
