"""An array as our kernels see weights that lie in memory."""

from __future__ import annotations

from common.compute.tile_products import in_memory
from common.native.address import address
from common.native.library import Matrix
from common.weights.slice_format import TensorPlace
from common.weights.stored_numbers import STORED_NAMES, Stored


def matrix_of(weight: Stored) -> Matrix:
    """Return weights [in, out] without gaps, which the caller keeps where they are."""
    assert weight.flags.c_contiguous
    place = TensorPlace(name="weight", dtype=STORED_NAMES[weight.dtype], shape=weight.shape, offset=0)
    return in_memory(address(weight), place)
