"""Which encodings do weights have that come in GGUF's blocks, and how many bytes do they take?

    values              packed matrix [depth, width]: depth inputs, in whole blocks; groups of 16 outputs, the last full

Covers: one table of names and sizes, which native/encodings.h has too, and arithmetic on it.
Does not cover: floats (stored_numbers.py), packing and unpacking (packed_blocks.py).
Source of the sizes: ggml's quants, as the gguf package's `GGML_QUANT_SIZES` has them.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.native.library import FLOAT_KINDS, WEIGHT_KINDS

GROUP_OUTPUTS = 16
"""Outputs that lie side by side; a matrix may be cut between two groups."""
PIECE_INPUTS = 32
"""Inputs between which chains of sums may begin; all blocks have a multiple of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How weights are stored in blocks."""

    name: str
    """As in WEIGHT_KINDS and, in lower case, as GGUF calls it."""
    block_values: int
    """Neighbouring inputs of one output that share a block."""
    block_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block_values


_SIZES = {
    "q8_0": (32, 34), "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24),
    "q2_k": (256, 84), "q3_k": (256, 110), "q4_k": (256, 144), "q5_k": (256, 176), "q6_k": (256, 210),
    "iq4_nl": (32, 18), "iq4_xs": (256, 136),
}  # fmt: skip
ENCODINGS = {
    name: Encoding(name=name, block_values=values, block_bytes=size) for name, (values, size) in _SIZES.items()
}
"""By name; each of WEIGHT_KINDS is here or a float."""
assert (*FLOAT_KINDS, *ENCODINGS) == WEIGHT_KINDS


def is_encoded(dtype: str) -> bool:
    """Tell whether a dtype of a slice is one of ENCODINGS, and no float."""
    return dtype in ENCODINGS


def grain(encoding: str) -> int:
    """Return of how many inputs a matrix' depth, and each cut of it that copies nothing, is a multiple; 1 of floats."""
    return ENCODINGS[encoding].block_values if is_encoded(encoding) else 1


def row_bytes(encoding: str, depth: int) -> int:
    """Return how many bytes one output's `depth` weights take, a multiple of the encoding's block."""
    blocks, left = divmod(depth, ENCODINGS[encoding].block_values)
    if left or depth < 0:
        raise ValueError(f"{depth} inputs are no whole blocks of {encoding}")
    return blocks * ENCODINGS[encoding].block_bytes


def packed_bytes(encoding: str, depth: int, width: int) -> int:
    """Return how many bytes a packed matrix [depth, width] takes; its last group is as large as the others."""
    return -(-width // GROUP_OUTPUTS) * GROUP_OUTPUTS * row_bytes(encoding, depth)
