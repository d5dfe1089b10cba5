"""Tensors to protobuf and back, with distrust: the receiver states dtype and shape, the message must agree.

Long ones may lie in memory that both sides see (memory_file.py); their message then says no more than that they do.

Does not cover: which dtype goes over the wire (the caller's choice).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch

from common.errors import ShapeError
from protos.shardmesh.v1 import tensor_pb2

_TO_WIRE = {
    torch.float32: tensor_pb2.TENSOR_DTYPE_FLOAT32,
    torch.bfloat16: tensor_pb2.TENSOR_DTYPE_BFLOAT16,
    torch.float16: tensor_pb2.TENSOR_DTYPE_FLOAT16,
}
_LONG_BYTES = 1 << 16
"""From this length on, a tensor is a view over the bytes that protobuf hands out, which nothing else refers to."""

with warnings.catch_warnings():  # older torches warn, once a process, of memory that must not be written
    warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
    torch.frombuffer(bytes(1), dtype=torch.uint8)


def wire_number(dtype: torch.dtype) -> tensor_pb2.TensorDtype:
    """Return what a dtype is called in messages."""
    return _TO_WIRE[dtype]


def dtype_of(number: int, allowed: Sequence[torch.dtype]) -> torch.dtype:
    """Return the dtype that a peer names, the first of `allowed` if it names none. Raises: ShapeError: another one."""
    if number == tensor_pb2.TENSOR_DTYPE_UNSPECIFIED:
        return allowed[0]
    for dtype in allowed:
        if _TO_WIRE[dtype] == number:
            return dtype
    raise ShapeError(f"numbers cannot travel as {_wire_name(number)}; use {', '.join(map(str, allowed))}")


def encode_tensor(tensor: torch.Tensor, into: tensor_pb2.Tensor) -> None:
    """Write a CPU tensor of a wire dtype into the message `into`, row-major and little-endian."""
    into.dtype = _TO_WIRE[tensor.dtype]
    into.shape.extend(tensor.shape)
    contiguous = tensor.contiguous()
    if contiguous.dtype is torch.bfloat16:
        contiguous = contiguous.view(torch.int16)
    into.data = contiguous.numpy().tobytes()


def encode_in_memory(tensor: torch.Tensor, into: tensor_pb2.Tensor, place: torch.Tensor) -> None:
    """Write a float32 CPU tensor to `place`, memory that the receiver sees, and say so in the message `into`.

    Nothing is copied where both are the same memory.
    """
    if tensor.data_ptr() != place.data_ptr() or not tensor.is_contiguous():
        place.copy_(tensor)
    into.dtype = tensor_pb2.TENSOR_DTYPE_FLOAT32
    into.shape.extend(tensor.shape)
    into.is_in_memory = True


def decode_tensor(
    message: tensor_pb2.Tensor,
    *,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    in_memory: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the tensor in `message`, which must have exactly `shape` and `dtype`.

    It shares no memory with the message, but must not be written: it may lie over bytes that Python takes for constant.
    Args: in_memory: where it may lie instead, memory that the sender writes too; it is returned then, and changes with
    the sender's next message.
    Raises: ShapeError: another dtype, another shape, a byte count that does not fit, or memory that there is not.
    """
    if message.is_in_memory:
        _check_type(message, shape, dtype)
        if in_memory is None or in_memory.shape != shape or in_memory.dtype is not dtype or message.data:
            raise ShapeError(f"a tensor of shape {list(shape)} is said to lie in memory that there is not")
        return in_memory
    data = _checked_data(message, shape, dtype)
    return torch.frombuffer(data if len(data) >= _LONG_BYTES else bytearray(data), dtype=dtype).view(shape)


def decode_tensors(
    messages: Sequence[tensor_pb2.Tensor], *, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, ...]:
    """Return several tensors that must all have `shape` and `dtype`, cheaper than one by one; not to be written either.

    Raises: ShapeError: as `decode_tensor`; or there is no message.
    """
    if not messages:
        raise ShapeError("no tensor arrived")
    all_data = [_checked_data(message, shape, dtype) for message in messages]
    if len(all_data[0]) >= _LONG_BYTES:
        return tuple([torch.frombuffer(data, dtype=dtype).view(shape) for data in all_data])
    return torch.frombuffer(bytearray().join(all_data), dtype=dtype).view(len(messages), *shape).unbind()


def _checked_data(message: tensor_pb2.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> bytes:
    _check_type(message, shape, dtype)
    data = message.data
    expected_bytes = math.prod(shape) * dtype.itemsize
    if len(data) != expected_bytes or not data:
        raise ShapeError(f"a tensor arrived with {len(data)} bytes, expected {expected_bytes}")
    return data


def _check_type(message: tensor_pb2.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if message.dtype != _TO_WIRE[dtype]:
        raise ShapeError(f"a tensor arrived with the dtype {_wire_name(message.dtype)}, expected {dtype}")
    if len(message.shape) != len(shape) or tuple(message.shape) != shape:
        raise ShapeError(f"a tensor arrived with shape {list(message.shape[:8])}, expected {list(shape)}")


def _wire_name(number: int) -> str:
    """Return what a person calls a dtype of the wire, which a peer may have made up."""
    names = {int(wire): str(dtype) for dtype, wire in _TO_WIRE.items()}
    return names.get(number, f"number {number}")
