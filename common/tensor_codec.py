"""Tensors to protobuf and back, with distrust: the receiver states dtype and shape, the message must agree.

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


def encode_tensor(tensor: torch.Tensor, into: tensor_pb2.Tensor) -> None:
    """Write a CPU tensor of a wire dtype into the message `into`, row-major and little-endian."""
    into.dtype = _TO_WIRE[tensor.dtype]
    into.shape.extend(tensor.shape)
    contiguous = tensor.contiguous()
    if contiguous.dtype is torch.bfloat16:
        contiguous = contiguous.view(torch.int16)
    into.data = contiguous.numpy().tobytes()


def decode_tensor(
    message: tensor_pb2.Tensor, *, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return the tensor in `message`, which must have exactly `shape` and `dtype`.

    It shares no memory with the message, but must not be written: it may lie over bytes that Python takes for constant.
    Raises: ShapeError: another dtype, another shape, or a byte count that does not fit.
    """
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
    if message.dtype != _TO_WIRE[dtype]:
        raise ShapeError(f"a tensor arrived with the dtype {_wire_name(message.dtype)}, expected {dtype}")
    if len(message.shape) != len(shape) or tuple(message.shape) != shape:
        raise ShapeError(f"a tensor arrived with shape {list(message.shape[:8])}, expected {list(shape)}")
    data = message.data
    expected_bytes = math.prod(shape) * dtype.itemsize
    if len(data) != expected_bytes or not data:
        raise ShapeError(f"a tensor arrived with {len(data)} bytes, expected {expected_bytes}")
    return data


def _wire_name(number: int) -> str:
    """Return what a person calls a dtype of the wire, which a peer may have made up."""
    names = {int(wire): str(dtype) for dtype, wire in _TO_WIRE.items()}
    return names.get(number, f"number {number}")
