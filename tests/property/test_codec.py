"""Does a tensor cross the wire bit for bit, and is every message that is not that tensor refused?

Covers: common/wire/tensor_codec.py. Does not cover: messages around tensors (tests/contract).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ShapeError
from common.weights.stored_numbers import NUMPY_DTYPES, Stored, narrowed
from common.wire.tensor_codec import decode_tensor, encode_tensor
from protos.shardmesh.v1 import tensor_pb2

DTYPES = ("float32", "float16", "bfloat16")
shapes = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


def any_bits(shape: tuple[int, ...], dtype: str, seed: int) -> Stored:
    """Return an array of random bit patterns: NaNs with payloads, infinities, subnormals, negative zeros too."""
    byte_count = math.prod(shape) * NUMPY_DTYPES[dtype].itemsize
    noise = np.random.default_rng(seed).bytes(byte_count)
    return np.frombuffer(noise, NUMPY_DTYPES[dtype]).reshape(shape)


@given(shape=shapes, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 1000))
def test_a_tensor_comes_back_bit_for_bit(shape: tuple[int, ...], dtype: str, seed: int) -> None:
    """Every dtype of the wire, every bit pattern, through the serialized message."""
    tensor = any_bits(shape, dtype, seed)
    message = tensor_pb2.Tensor()
    encode_tensor(tensor, message)
    again = tensor_pb2.Tensor.FromString(message.SerializeToString())
    decoded = decode_tensor(again, shape=shape, dtype=dtype)
    assert (decoded.dtype, decoded.shape) == (NUMPY_DTYPES[dtype], shape)
    assert decoded.tobytes() == tensor.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("byte_count", [1 << 15, (1 << 16) - 4, 1 << 16, (1 << 16) + 4, 1 << 20])
def test_short_and_long_tensors_come_back_bit_for_bit(byte_count: int, dtype: str) -> None:
    """Where copying ends and looking at the message's bytes begins is nothing that a tensor shows."""
    shape = (byte_count // NUMPY_DTYPES[dtype].itemsize // 2, 2)
    tensors = [any_bits(shape, dtype, seed) for seed in range(3)]
    messages = []
    for tensor in tensors:
        message = tensor_pb2.Tensor()
        encode_tensor(tensor, message)
        messages.append(message)
    decoded = [decode_tensor(message, shape=shape, dtype=dtype) for message in messages]
    for message in messages:
        message.Clear()  # what was decoded lives on without it
    for tensor, other in zip(tensors, decoded, strict=True):
        assert (other.dtype, other.shape) == (NUMPY_DTYPES[dtype], shape)
        assert other.tobytes() == tensor.tobytes()


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), dtype=st.sampled_from(DTYPES))
def test_a_view_is_sent_row_by_row(rows: int, columns: int, dtype: str) -> None:
    """Transposed and cut tensors travel as what they look like, not as they lie in memory."""
    whole = narrowed(np.arange(2 * rows * columns, dtype=np.float32).reshape(columns, 2 * rows), dtype)
    view = whole.T[::2]
    message = tensor_pb2.Tensor()
    encode_tensor(view, message)
    assert np.array_equal(decode_tensor(message, shape=(rows, columns), dtype=dtype), view)


def test_the_bytes_are_little_endian_and_the_shape_is_outermost_first() -> None:
    """What tensor.proto says of the wire is what lies on it."""
    message = tensor_pb2.Tensor()
    encode_tensor(np.array([[1.0, -2.0, 0.5]], np.float32), message)
    assert message.dtype == tensor_pb2.TENSOR_DTYPE_FLOAT32
    assert list(message.shape) == [1, 3]
    assert message.data == bytes.fromhex("0000803f 000000c0 0000003f")


def test_a_short_decoded_tensor_owns_its_memory() -> None:
    """Writing in place, which long tensors forbid, would not write into a message."""
    message = tensor_pb2.Tensor()
    encode_tensor(np.ones(4, np.float32), message)
    before = message.SerializeToString()
    decode_tensor(message, shape=(4,))[...] = 2
    assert message.SerializeToString() == before


def test_encoding_leaves_the_tensor_as_it_was() -> None:
    """The same rows go to every rank."""
    tensor = np.full(4, 0x3F80, np.uint16)
    encode_tensor(tensor, tensor_pb2.Tensor())
    assert tensor.dtype == np.uint16
    assert (tensor == 0x3F80).all()


@given(
    dtype=st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, 2, 3]),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 4), max_size=4),
    data=st.binary(max_size=40) | st.just(bytes(24)),
)
def test_a_message_that_is_not_the_expected_tensor_is_refused(dtype: int, shape: list[int], data: bytes) -> None:
    """Only dtype, shape and byte count all as expected give a tensor; anything else is ShapeError, whatever it says."""
    message = tensor_pb2.Tensor(dtype=dtype, shape=shape, data=data)
    is_right = dtype == tensor_pb2.TENSOR_DTYPE_FLOAT32 and shape == [2, 3] and len(data) == 24
    if is_right:
        assert decode_tensor(message, shape=(2, 3)).shape == (2, 3)
    else:
        with pytest.raises(ShapeError):
            decode_tensor(message, shape=(2, 3))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"dtype": tensor_pb2.TENSOR_DTYPE_BFLOAT16}, "bfloat16, expected float32"),
        ({"dtype": 77}, "number 77"),
        ({"shape": [3, 2]}, r"shape \[3, 2\], expected \[2, 3\]"),
        ({"shape": [6]}, r"shape \[6\]"),
        ({"shape": [2, 3, 1]}, r"shape \[2, 3, 1\]"),
        ({"data": bytes(23)}, "23 bytes, expected 24"),
        ({"data": bytes(25)}, "25 bytes, expected 24"),
        ({"data": b""}, "0 bytes"),
    ],
)
def test_each_difference_is_named(spoil: dict[str, object], words: str) -> None:
    """Exactly one field differs from a right message, and the error says which and how."""
    fields = {"dtype": tensor_pb2.TENSOR_DTYPE_FLOAT32, "shape": [2, 3], "data": bytes(24)}
    with pytest.raises(ShapeError, match=words):
        decode_tensor(tensor_pb2.Tensor(**{**fields, **spoil}), shape=(2, 3))


def test_an_empty_tensor_is_no_tensor() -> None:
    """No round has zero rows."""
    with pytest.raises(ShapeError):
        decode_tensor(tensor_pb2.Tensor(dtype=1, shape=[0, 3]), shape=(0, 3))
