"""What are stored weights to numpy, and how do they become float32 and back?

    float32 -> float32      float16 -> float16      bfloat16 -> uint16: numpy has no such type, a shift widens it

Covers: the dtypes that a slice may have, by name; widening, which is exact; narrowing to the nearest, ties to even.
Does not cover: products with stored weights, which need no copy of them (common/compute/matmul.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Stored = npt.NDArray[np.generic]
"""float32, float16, or uint16 for bfloat16."""

NUMPY_DTYPES: dict[str, np.dtype[np.generic]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}
"""By the names of plans and manifests; in files, on links and in memory little-endian."""
STORED_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
_QUIET_BIT = np.uint16(0x40)


def widened(stored: Stored) -> Floats:
    """Return stored weights as float32; float32 itself is returned as it is."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float32, copy=False)


def narrowed(values: Floats, dtype: str) -> Stored:
    """Return float32 numbers as a dtype of NUMPY_DTYPES: the nearest, ties to even; too large ones become infinity."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return values.astype(NUMPY_DTYPES[dtype], copy=False)
    bits = np.ascontiguousarray(values).view(np.uint32)
    high = (bits >> np.uint32(16)).astype(np.uint16)
    rounded = ((bits + np.uint32(0x7FFF) + (high & np.uint16(1))) >> np.uint32(16)).astype(np.uint16)
    # Adding could make another number of one that is none.
    return np.where(np.isnan(values), high | _QUIET_BIT, rounded)
