"""How may a matrix be stored: as plain numbers, or as blocks of a GGUF file that share their scales?

Covers: the names of encodings, the sizes of their blocks, the bytes of a matrix. Does not cover: what lies where inside
(common/native/encodings.h), values (common/weights/packed_blocks.py, common/weights/stored_numbers.py).
Source of the blocks: ggml-common.h and the `gguf` package, whose names these are.
"""

from __future__ import annotations

from typing import NamedTuple

GROUP_OUTPUTS = 16
"""Neighbouring outputs whose blocks lie side by side."""


class Encoding(NamedTuple):
    """Blocks of so many values of one output, and the bytes of one."""

    block_values: int
    block_bytes: int


BLOCK_ENCODINGS = {
    "q8_0": Encoding(32, 34),
    "q4_0": Encoding(32, 18),
    "q4_1": Encoding(32, 20),
    "q5_0": Encoding(32, 22),
    "q5_1": Encoding(32, 24),
    "q2_k": Encoding(256, 84),
    "q3_k": Encoding(256, 110),
    "q4_k": Encoding(256, 144),
    "q5_k": Encoding(256, 176),
    "q6_k": Encoding(256, 210),
    "iq4_nl": Encoding(32, 18),
    "iq4_xs": Encoding(256, 136),
}
"""By name, in the order of common/native/product.h, which has the plain ones before them."""


def grain(encoding: str) -> int:
    """Return at which multiples of inputs a matrix may be cut without touching a value; 1 of plain numbers."""
    return BLOCK_ENCODINGS[encoding].block_values if encoding in BLOCK_ENCODINGS else 1


def packed_bytes(encoding: str, depth: int, width: int) -> int:
    """Return the bytes of a packed matrix of blocks, [depth, width]: whole groups of outputs.

    Args: depth: inputs, whole blocks; width: outputs.
    """
    block_values, block_bytes = BLOCK_ENCODINGS[encoding]
    assert depth % block_values == 0
    return -(-width // GROUP_OUTPUTS) * GROUP_OUTPUTS * (depth // block_values) * block_bytes
