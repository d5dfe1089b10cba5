"""Arrays as our kernels see weights that lie in memory, and tiles of them."""

from __future__ import annotations

from common.compute.tile_products import in_memory
from common.native.address import address
from common.native.library import AttentionTile, FfnTile, Matrix
from common.weights.slice_format import TensorPlace
from common.weights.stored_numbers import STORED_NAMES, Stored


def matrix_of(weight: Stored) -> Matrix:
    """Return weights [in, out] without gaps, which the caller keeps where they are."""
    assert weight.flags.c_contiguous
    place = TensorPlace(name="weight", dtype=STORED_NAMES[weight.dtype], shape=weight.shape, offset=0)
    return in_memory(address(weight), place)


def ffn_tile_of(gate_up: Matrix, down: Matrix, activation: int = 0) -> FfnTile:
    """Return a tile whose gate and up lie side by side, without a bias."""
    return FfnTile((Matrix * 2)(gate_up), 1, activation, down, 0, None)


def attention_tile_of(qkv: Matrix, output: Matrix) -> AttentionTile:
    """Return a tile whose q, k and v lie side by side."""
    return AttentionTile((Matrix * 3)(qkv), 1, output, 0)
