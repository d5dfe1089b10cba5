"""A tensor as our kernels see weights that lie in memory."""

from __future__ import annotations

import torch

from common.compute.tile_products import in_memory
from common.native.library import Matrix
from common.weights.slice_format import TensorPlace


def matrix_of(weight: torch.Tensor) -> Matrix:
    """Return weights [in, out] without gaps, which the caller keeps where they are."""
    assert weight.is_contiguous()
    dtype = str(weight.dtype).removeprefix("torch.")
    place = TensorPlace(name="weight", dtype=dtype, shape=tuple(weight.shape), offset=0)
    return in_memory(weight.data_ptr(), place)
