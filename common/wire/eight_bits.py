"""A prompt's rows in a quarter of the bytes: 8 bits a number, and a float32 scale for each 64 of a row.

Covers: rounding and back, by kernels of ours (native/rounding.c), by numpy with the same bits where there are none.
Does not cover: which rounds travel so (row_codec.py), how far tokens differ then (DECISIONS.md has a figure).

A block with a number that is not finite comes back as nothing but such, so that it is found as it would be without.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.errors import ShapeError
from common.native.address import address
from common.native.library import NUMBERS_PER_SCALE, shared
from common.weights.stored_numbers import Floats

MOST = np.float32(127)


def rounded_bytes(row_count: int, width: int) -> int:
    """Return how many bytes such rows take."""
    return row_count * (4 * _block_count(width) + width)


def rounded(rows: Floats) -> bytes:
    """Return float32 [row_count, width] as they travel: all scales, then all numbers, row-major and little-endian."""
    rows = np.ascontiguousarray(rows)
    row_count, width = rows.shape
    made = np.empty(rounded_bytes(row_count, width), np.uint8)
    scales, numbers = _parts(made, row_count, width)
    functions = shared().functions
    if functions is None:
        _round_in_numpy(rows, scales, numbers)
    else:
        functions.shardmesh_round_rows(address(rows), row_count, width, address(scales), address(numbers))
    return made.tobytes()


def unrounded(data: bytes | memoryview, shape: tuple[int, ...]) -> Floats:
    """Return the rows that have travelled, new float32 [row_count, width]. Raises: ShapeError: another length."""
    row_count, width = shape
    if len(data) != rounded_bytes(row_count, width) or not data:
        raise ShapeError(f"rows of 8 bits arrived with {len(data)} bytes, expected {rounded_bytes(row_count, width)}")
    scales, numbers = _parts(np.frombuffer(bytearray(data), np.uint8), row_count, width)
    functions = shared().functions
    if functions is None:
        return _unround_in_numpy(scales, numbers)
    rows = np.empty(shape, np.float32)
    functions.shardmesh_unround_rows(address(scales), address(numbers), row_count, width, address(rows))
    return rows


def _block_count(width: int) -> int:
    return -(-width // NUMBERS_PER_SCALE)


def _parts(data: npt.NDArray[np.uint8], row_count: int, width: int) -> tuple[Floats, npt.NDArray[np.int8]]:
    """Return views: scales [row_count, blocks], numbers [row_count, width]."""
    split = 4 * row_count * _block_count(width)
    return (
        data[:split].view(np.float32).reshape(row_count, -1), data[split:].view(np.int8).reshape(row_count, width)
    )  # fmt: skip


def _round_in_numpy(rows: Floats, scales: Floats, numbers: npt.NDArray[np.int8]) -> None:
    width = rows.shape[1]
    with np.errstate(all="ignore"):  # infinities times nothing, and the like
        for block in range(scales.shape[1]):
            own = slice(block * NUMBERS_PER_SCALE, min(width, (block + 1) * NUMBERS_PER_SCALE))
            most = np.abs(rows[:, own]).max(axis=1, keepdims=True)
            inverse = np.where((most > 0) & (most < np.inf), MOST / most, np.float32(0))
            scales[:, block] = (most / MOST)[:, 0]
            whole = np.rint(rows[:, own] * inverse)
            numbers[:, own] = np.where((inverse > 0) & (np.abs(whole) <= MOST), whole, 0).astype(np.int8)


def _unround_in_numpy(scales: Floats, numbers: npt.NDArray[np.int8]) -> Floats:
    each = np.repeat(scales, NUMBERS_PER_SCALE, axis=1)[:, : numbers.shape[1]]
    with np.errstate(all="ignore"):
        return numbers.astype(np.float32) * each
