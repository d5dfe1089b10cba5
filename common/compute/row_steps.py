"""What a few rows go through between two blocks: sum of parts, norm; by kernels of our own.

Covers: whether they can, and calling them (native/steps.c says what they compute and why torch does not). Sums of parts
and norms take many rows too: they go through memory once, where torch's operations go several times.
Does not cover: blocks (tile_products.py), the same steps in torch, where there is no library (residual.py,
coordinator/ranks/reduction.py).

All tensors are float32 on the CPU and contiguous unless something else is said.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from common.compute import matmul


def can_step(rows: torch.Tensor) -> bool:
    """Tell whether these rows [row_count, ...] are few, on the CPU, and there are kernels."""
    return rows.shape[0] <= matmul.MOST_NATIVE_ROWS and can_add_up(rows)


def can_add_up(rows: torch.Tensor) -> bool:
    """Tell whether `add_parts` and `add_and_normalize` take such rows [row_count, ...]: any number of them."""
    return matmul.kernels.functions is not None and rows.is_cpu


def add_parts(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, bool]:
    """Return the sum of tensors of one shape in their order, new, and whether all of it is finite."""
    total = torch.empty(parts[0].shape)
    addresses = (ctypes.c_void_p * len(parts))(*[part.data_ptr() for part in parts])
    return total, not matmul.functions().shardmesh_add(addresses, len(parts), total.numel(), total.data_ptr())


def add_and_normalize(
    hidden: torch.Tensor,
    addend: torch.Tensor | None,
    weight: torch.Tensor,
    epsilon: float,
    into: torch.Tensor | None = None,
) -> torch.Tensor:
    """Add `addend` to `hidden` in place; return its rows by their root mean square, times `weight`.

    Args: into: of hidden's shape, to be written and returned; new if not given.
    """
    normed = torch.empty(hidden.shape) if into is None else into
    row_count, width = hidden.shape
    matmul.functions().shardmesh_normalize(
        hidden.data_ptr(), address(addend), weight.data_ptr(), row_count, width, epsilon, normed.data_ptr()
    )
    return normed


def address(tensor: torch.Tensor | None) -> int | None:
    """Return where a tensor lies; None for none."""
    return None if tensor is None else tensor.data_ptr()
