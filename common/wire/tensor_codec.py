"""Arrays to tensors of protobuf and back, with distrust: the receiver states dtype and shape, the message must agree.

Long ones may lie in memory that both sides see (memory_file.py); their message then says no more than that they do.

Covers: float32, float16, and bfloat16 as its 16 bits (uint16), as in weights/stored_numbers.py.
Does not cover: which dtype goes over the wire (the caller's choice), rows of 8 bits (row_codec.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from common.errors import ShapeError
from common.weights.stored_numbers import NUMPY_DTYPES, STORED_NAMES, Floats, Stored
from protos.shardmesh.v1 import tensor_pb2

INT8 = "int8"
"""Not of numpy: numbers with scales (eight_bits.py)."""
_TO_WIRE = {
    "float32": tensor_pb2.TENSOR_DTYPE_FLOAT32,
    "bfloat16": tensor_pb2.TENSOR_DTYPE_BFLOAT16,
    "float16": tensor_pb2.TENSOR_DTYPE_FLOAT16,
    INT8: tensor_pb2.TENSOR_DTYPE_INT8_BLOCKS,
}
_LONG_BYTES = 1 << 16
"""Shorter arrays are copied to memory that may be written, whose address costs microseconds less to ask for."""


def wire_number(dtype: str) -> tensor_pb2.TensorDtype:
    """Return what a dtype is called in messages."""
    return _TO_WIRE[dtype]


def dtype_of(number: int, allowed: Sequence[str]) -> str:
    """Return the dtype that a peer names, the first of `allowed` if it names none. Raises: ShapeError: another one."""
    if number == tensor_pb2.TENSOR_DTYPE_UNSPECIFIED:
        return allowed[0]
    for dtype in allowed:
        if _TO_WIRE[dtype] == number:
            return dtype
    raise ShapeError(f"numbers cannot travel as {_wire_name(number)}; use {', '.join(allowed)}")


def encode_tensor(array: Stored, into: tensor_pb2.Tensor) -> None:
    """Write an array of a wire dtype into the message `into`, row-major and little-endian."""
    into.dtype = _TO_WIRE[STORED_NAMES[array.dtype]]
    into.shape.extend(array.shape)
    into.data = array.tobytes()


def encode_in_memory(array: Floats, into: tensor_pb2.Tensor, place: Floats) -> None:
    """Write a float32 array to `place`, memory that the receiver sees, and say so in the message `into`.

    Nothing is copied where both are the same array.
    """
    if array is not place:
        place[...] = array
    into.dtype = tensor_pb2.TENSOR_DTYPE_FLOAT32
    into.shape.extend(array.shape)
    into.is_in_memory = True


def decode_tensor(
    message: tensor_pb2.Tensor,
    *,
    shape: tuple[int, ...],
    dtype: str = "float32",
    in_memory: Floats | None = None,
) -> Stored:
    """Return the array in `message`, which must have exactly `shape` and `dtype`.

    It shares no memory with the message, but must not be written: it may lie over bytes that Python takes for constant.
    Args: in_memory: where it may lie instead, memory that the sender writes too; it is returned then, and changes with
    the sender's next message.
    Raises: ShapeError: another dtype, another shape, a byte count that does not fit, or memory that there is not.
    """
    if message.is_in_memory:
        check_type(message, shape, dtype)
        if in_memory is None or in_memory.shape != shape or dtype != "float32" or message.data:
            raise ShapeError(f"a tensor of shape {list(shape)} is said to lie in memory that there is not")
        return in_memory
    data = _checked_data(message, shape, dtype)
    return _array(data if len(data) >= _LONG_BYTES else bytearray(data), shape, dtype)


def decode_bytes(data: bytes | memoryview, shape: tuple[int, ...], dtype: str) -> Stored:
    """Return an array that came without a word of its type and shape; it may be written. Raises: ShapeError.

    Memory that may be written is not copied: the array lies in it.
    """
    _check_length(data, shape, dtype)
    is_ours = isinstance(data, memoryview) and not data.readonly
    return _array(data if is_ours else bytearray(data), shape, dtype)


def _array(data: bytes | bytearray | memoryview, shape: tuple[int, ...], dtype: str) -> Stored:
    array: Stored = np.ndarray(shape, NUMPY_DTYPES[dtype], data)
    return array


def _checked_data(message: tensor_pb2.Tensor, shape: tuple[int, ...], dtype: str) -> bytes:
    check_type(message, shape, dtype)
    _check_length(message.data, shape, dtype)
    return message.data


def _check_length(data: bytes | memoryview, shape: tuple[int, ...], dtype: str) -> None:
    expected_bytes = math.prod(shape) * NUMPY_DTYPES[dtype].itemsize
    if len(data) != expected_bytes or not data:
        raise ShapeError(f"a tensor arrived with {len(data)} bytes, expected {expected_bytes}")


def check_type(message: tensor_pb2.Tensor, shape: tuple[int, ...], dtype: str) -> None:
    """Raises: ShapeError: a tensor is said to be of another dtype or shape."""
    if message.dtype != _TO_WIRE[dtype]:
        raise ShapeError(f"a tensor arrived with the dtype {_wire_name(message.dtype)}, expected {dtype}")
    if len(message.shape) != len(shape) or tuple(message.shape) != shape:
        raise ShapeError(f"a tensor arrived with shape {list(message.shape[:8])}, expected {list(shape)}")


def _wire_name(number: int) -> str:
    """Return what a person calls a dtype of the wire, which a peer may have made up."""
    names = {int(wire): dtype for dtype, wire in _TO_WIRE.items()}
    return names.get(number, f"number {number}")
