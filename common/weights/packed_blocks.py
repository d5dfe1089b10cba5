"""How do blocks of a GGUF file become a packed matrix, and a packed matrix float32?

    rows uint8 [outputs, row_bytes], as in a file  --pack-->  uint8 [packed_bytes]  --unpacked-->  float32 [in, out]

Covers: packing, refusing scales that are no numbers, all values or one output's (a token's row of an embedding).
Does not cover: sizes (encodings.py), products with packed matrices (common/compute/matmul.py),
the order of bytes (native/encodings.h).
"""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from common.errors import InputError
from common.native.address import address
from common.native.build import how_to_build
from common.native.library import WEIGHT_KINDS, shared
from common.weights.encodings import GROUP_OUTPUTS, packed_bytes, row_bytes
from common.weights.stored_numbers import Floats

Bytes = npt.NDArray[np.uint8]


def pack(encoding: str, rows: Bytes, depth: int) -> Bytes:
    """Return rows of blocks as a packed matrix [depth, row_count], new uint8 [packed_bytes].

    Args: rows: uint8 [row_count, row_bytes], each row without gaps; rows may lie apart.
    Raises: InputError: there are no kernels here; ValueError: rows are not that long.
    """
    rows = _checked(encoding, rows, depth)
    packed = np.empty(packed_bytes(encoding, depth, len(rows)), np.uint8)
    outcome = _functions().shardmesh_pack_blocks(
        WEIGHT_KINDS.index(encoding), rows.ctypes.data, rows.strides[0], len(rows), depth, address(packed)
    )
    assert outcome == 0, "the encoding is one of the library's and rows are whole blocks"
    return packed


def not_finite_row(encoding: str, rows: Bytes, depth: int) -> int | None:
    """Return the first row with a scale that is infinite or no number; None: there is none. As pack."""
    rows = _checked(encoding, rows, depth)
    row: int = _functions().shardmesh_blocks_not_finite(
        WEIGHT_KINDS.index(encoding), rows.ctypes.data, rows.strides[0], len(rows), depth
    )
    return None if row < 0 else row


def unpacked(encoding: str, packed: Bytes, depth: int, width: int) -> Floats:
    """Return what a packed matrix holds, new float32 [depth, width]: the bits that gguf's own dequantize gives.

    Raises: InputError: there are no kernels here; ValueError: `packed` has another length.
    """
    _check_length(packed, packed_bytes(encoding, depth, width))
    made = np.empty((depth, width), np.float32)
    outcome = _functions().shardmesh_unpack(WEIGHT_KINDS.index(encoding), address(packed), depth, width, address(made))
    assert outcome == 0, "the encoding is one of the library's and the depth whole blocks"
    return made


def output_row(encoding: str, packed: Bytes, depth: int, output: int) -> Floats:
    """Return one output's weights, new float32 [depth]: of an embedding, packed by tokens, a token's row. As unpacked.

    Args: packed: a packed matrix, or only the group that has the output, which then counts from there.
    """
    group, lane = divmod(output, GROUP_OUTPUTS)
    group_bytes = packed_bytes(encoding, depth, GROUP_OUTPUTS)
    own = packed[group * group_bytes : (group + 1) * group_bytes]
    _check_length(own, group_bytes)
    row = np.empty(depth, np.float32)
    outcome = _functions().shardmesh_unpack_output(
        WEIGHT_KINDS.index(encoding), address(own), depth, lane, address(row)
    )
    assert outcome == 0, "the encoding is one of the library's and the depth whole blocks"
    return row


def _functions() -> ctypes.CDLL:
    kernels = shared()
    if kernels.functions is None:
        raise InputError(
            f"weights in GGUF's blocks take kernels, which this machine has not: {kernels.reason}; "
            f"{how_to_build()}, or take a model in float16"
        )
    return kernels.functions


def _checked(encoding: str, rows: Bytes, depth: int) -> Bytes:
    wanted = row_bytes(encoding, depth)
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != wanted:
        raise ValueError(f"rows of {depth} weights in {encoding} have {wanted} bytes each, not shape {rows.shape}")
    return rows if rows.strides[1] == 1 or not rows.size else np.ascontiguousarray(rows)


def _check_length(packed: Bytes, wanted: int) -> None:
    if packed.dtype != np.uint8 or packed.shape != (wanted,) or not packed.flags.c_contiguous:
        raise ValueError(f"a packed matrix of that shape has {wanted} bytes, not {packed.nbytes}")
