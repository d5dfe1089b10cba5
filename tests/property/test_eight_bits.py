"""Are rows that travel in 8 bits as near as 8 bits allow, and the same bits with kernels and without?

Covers: common/wire/eight_bits.py and common/wire/row_codec.py. Does not cover: sessions that agree on it
(tests/contract/test_wire_dtype.py), other instruction sets (test_instruction_sets.py).
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common.errors import ShapeError
from common.native.library import NUMBERS_PER_SCALE, absent
from common.weights.stored_numbers import Floats
from common.wire import eight_bits
from common.wire.eight_bits import MOST, rounded, rounded_bytes, unrounded
from common.wire.row_codec import TOKEN_ROWS, decode_rows, encode_rows, row_bytes, rows_of
from protos.shardmesh.v1 import tensor_pb2

shapes = st.tuples(st.integers(1, 4), st.integers(1, 3 * NUMBERS_PER_SCALE))
usual = st.floats(-(2.0**100), 2.0**100, width=32)


def without_kernels(rows: Floats) -> tuple[bytes, Floats]:
    """Return what numpy alone makes of rows, there and back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eight_bits, "shared", lambda: absent("none wanted"))
        data = rounded(rows)
        return data, unrounded(data, rows.shape)


def largest_of_blocks(rows: Floats) -> Floats:
    """Return the largest size in each number's block, of the shape of `rows`."""
    most = np.empty_like(rows)
    for first in range(0, rows.shape[1], NUMBERS_PER_SCALE):
        own = slice(first, first + NUMBERS_PER_SCALE)
        most[:, own] = np.abs(rows[:, own]).max(axis=1, keepdims=True)
    return most


@given(rows=arrays.arrays(np.float32, shapes, elements=st.floats(width=32)))
def test_kernels_and_numpy_make_the_same_bits(rows: Floats) -> None:
    """Of every number, also of those that are none."""
    data = rounded(rows)
    expected, back = without_kernels(rows)
    assert len(data) == rounded_bytes(*rows.shape)
    finite = np.isfinite(rows).all()
    assert not finite or data == expected
    assert np.array_equal(unrounded(data, rows.shape), back, equal_nan=True)


@given(rows=arrays.arrays(np.float32, shapes, elements=usual))
def test_no_number_is_off_by_more_than_half_a_step_of_its_block(rows: Floats) -> None:
    """A step is a 127th of the block's largest; what lies below float32's smallest normal number may become 0."""
    most = largest_of_blocks(rows).astype(np.float64)
    back = unrounded(rounded(rows), rows.shape).astype(np.float64)
    assert (np.abs(back - rows) <= most / float(MOST) * 0.5001 + 1e-36).all()


@given(rows=arrays.arrays(np.float32, shapes, elements=usual), bad=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_number_that_is_none_is_found_afterwards(rows: Floats, bad: float) -> None:
    """Its row is spoiled, as it would be without rounding; other rows are not."""
    rows[0, -1] = bad
    back = unrounded(rounded(rows), rows.shape)
    assert not np.isfinite(back[0, -1])
    assert np.isfinite(back[1:]).all()


@given(shape=shapes, more=st.integers(-3, 3).filter(bool))
def test_bytes_that_are_no_such_rows_are_refused(shape: tuple[int, int], more: int) -> None:
    """Whatever a peer sends instead."""
    data = bytes(max(0, rounded_bytes(*shape) + more))
    with pytest.raises(ShapeError, match="8 bits"):
        unrounded(data, shape)


@pytest.mark.parametrize("row_count", [1, TOKEN_ROWS, TOKEN_ROWS + 1])
def test_only_a_prompt_s_rows_are_rounded(row_count: int) -> None:
    """A token's travel as they are, in messages of both kinds; a prompt's take little more than a byte a number."""
    rows = np.random.default_rng(1).standard_normal((row_count, 128), dtype=np.float32)
    message = tensor_pb2.Tensor()
    encode_rows(rows, "int8", message)
    packed = row_bytes(rows, "int8")
    found = decode_rows(message, rows.shape, "int8")
    assert np.array_equal(found, rows_of(packed, rows.shape, "int8"))
    assert len(packed) == len(message.data)
    is_rounded = row_count > TOKEN_ROWS
    assert len(packed) == (rounded_bytes(*rows.shape) if is_rounded else rows.nbytes)
    assert np.array_equal(found, rows) is not is_rounded


def test_a_message_in_another_type_than_agreed_is_refused() -> None:
    """Float32 where 8 bits belong, and the other way round."""
    rows = np.zeros((TOKEN_ROWS + 1, 8), np.float32)
    for sent, expected in (("float32", "int8"), ("int8", "float32"), ("int8", "bfloat16")):
        message = tensor_pb2.Tensor()
        encode_rows(rows, sent, message)
        with pytest.raises(ShapeError, match=f"dtype {sent}, expected {expected}"):
            decode_rows(message, rows.shape, expected)
