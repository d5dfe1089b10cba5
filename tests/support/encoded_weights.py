"""Random blocks of every encoding of GGUF, as a file might have them, and what they are.

Covers: blocks of random bits whose 16-bit scales are kept small and finite, since the gguf package makes no k-quants;
the same values by that package.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize

from common.weights.encodings import ENCODINGS, row_bytes
from common.weights.stored_numbers import Floats

SCALE_PLACES = {
    "q8_0": (0,), "q4_0": (0,), "q4_1": (0, 2), "q5_0": (0,), "q5_1": (0, 2), "q2_k": (80, 82), "q3_k": (108,),
    "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,), "iq4_nl": (0,), "iq4_xs": (0,),
}  # fmt: skip
"""Where in a block its 16-bit scales lie."""


def random_rows(encoding: str, row_count: int, depth: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return uint8 [row_count, row_bytes]: outputs of `depth` weights."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, 256, (row_count, row_bytes(encoding, depth)), dtype=np.uint8)
    blocks = rows.reshape(row_count, -1, ENCODINGS[encoding].block_bytes)
    for place in SCALE_PLACES[encoding]:
        scales = random.standard_normal(blocks.shape[:2]).astype(np.float16) / np.float16(64)
        blocks[:, :, place : place + 2] = scales[..., None].view(np.uint8)
    return rows


def values_of(encoding: str, rows: npt.NDArray[np.uint8]) -> Floats:
    """Return what the gguf package makes of rows, float32 [depth, row_count]."""
    values = dequantize(rows, GGMLQuantizationType[encoding.upper()])
    return np.ascontiguousarray(values.astype(np.float32, copy=False).T)
