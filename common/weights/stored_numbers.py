"""What are stored weights to numpy, and how do they become float32 and back?

    float32 -> float32      float16 -> float16      bfloat16 -> uint16: numpy has no such type, a shift widens it

Covers: the dtypes that a slice may have, by name; widening, which is exact; narrowing to the nearest, ties to even.
Our own kernels do it where they are; numpy, more slowly and with the same numbers, where they are not.
Does not cover: products with stored weights, which need no copy of them (common/compute/matmul.py).
"""

from __future__ import annotations

import ctypes
from typing import cast

import numpy as np
import numpy.typing as npt

from common.native.address import address
from common.native.library import WEIGHT_KINDS, shared

Floats = npt.NDArray[np.float32]
Stored = npt.NDArray[np.generic]
"""float32, float16, or uint16 for bfloat16."""
Bytes = npt.NDArray[np.uint8]
"""Of blocks (encodings.py), [outputs, bytes of a row], or packed."""

NUMPY_DTYPES: dict[str, np.dtype[np.generic]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}
"""By the names of plans and manifests; in files, on links and in memory little-endian."""
STORED_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
_FLOAT32 = NUMPY_DTYPES["float32"]
_QUIET_BIT = np.uint16(0x40)


def widened(stored: Stored) -> Floats:
    """Return stored weights as float32; float32 itself is returned as it is."""
    if stored.dtype == _FLOAT32:
        return cast("Floats", stored)
    functions = _functions()
    if functions is not None and stored.flags.c_contiguous:
        made = np.empty(stored.shape, np.float32)
        kind = WEIGHT_KINDS.index(STORED_NAMES[stored.dtype])
        outcome = functions.shardmesh_widen(address(stored), kind, stored.size, address(made))
        assert outcome == 0, "the kind is one of the library's"
        return made
    if stored.dtype == np.uint16:
        bits: npt.NDArray[np.uint32] = stored.astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32)
    return stored.astype(np.float32)


def narrowed(values: Floats, dtype: str) -> Stored:
    """Return float32 numbers as a dtype of NUMPY_DTYPES: the nearest, ties to even; too large ones become infinity."""
    is_float32 = values.dtype == _FLOAT32
    if is_float32 and dtype == "float32":  # each block of a token asks: numpy's astype is fifteen times this
        return values
    functions = _functions()
    if dtype != "float32" and functions is not None and is_float32 and values.flags.c_contiguous:
        made: Stored = np.empty(values.shape, NUMPY_DTYPES[dtype])
        kind = WEIGHT_KINDS.index(dtype)
        outcome = functions.shardmesh_narrow(address(values), kind, values.size, address(made))
        assert outcome == 0, "the kind is one of the library's"
        return made
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            halves: Stored = values.astype(NUMPY_DTYPES[dtype], copy=False)
        return halves
    bits = np.ascontiguousarray(values).view(np.uint32)
    high = (bits >> np.uint32(16)).astype(np.uint16)
    rounded = ((bits + np.uint32(0x7FFF) + (high & np.uint16(1))) >> np.uint32(16)).astype(np.uint16)
    # Adding could make another number of one that is none.
    made_bits: Stored = np.where(np.isnan(values), high | _QUIET_BIT, rounded)
    return made_bits


def _functions() -> ctypes.CDLL | None:
    return shared().functions
