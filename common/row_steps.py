"""What a few rows go through between two products: gate, attention, sum of parts, norm; by kernels of our own.

Covers: whether they can, and calling them (native/steps.c says what they compute and why torch does not). Sums of parts
and norms take many rows too: they go through memory once, where torch's operations go several times.
Does not cover: products (matmul.py), the same steps in torch, for prompts and where there is no library
(shardnode/kernels.py, coordinator/ends.py, coordinator/reduction.py).

All tensors are float32 on the CPU and contiguous unless something else is said.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from common import matmul
from common.native.library import Attention

MOST_HEAD_SIZE = 512
"""native/steps.h has the same."""


def can_step(rows: torch.Tensor) -> bool:
    """Tell whether these rows [row_count, ...] are few, on the CPU, and there are kernels."""
    return rows.shape[0] <= matmul.MOST_NATIVE_ROWS and can_add_up(rows)


def can_add_up(rows: torch.Tensor) -> bool:
    """Tell whether `add_parts` and `add_and_normalize` take such rows [row_count, ...]: any number of them."""
    return matmul.kernels.functions is not None and rows.is_cpu


def gate(both: torch.Tensor) -> torch.Tensor:
    """Return silu(first half) * second half of rows [row_count, 2 * columns]: [row_count, columns]."""
    row_count, width = both.shape
    gated = torch.empty(row_count, width // 2)
    _functions().shardmesh_gate(both.data_ptr(), row_count, width // 2, gated.data_ptr())
    return gated


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedHeads:
    """Where the keys and values of neighbouring KV heads lie: addresses of the first head's position 0."""

    keys: int
    values: int
    head_pitch: int
    """float32 numbers from one head to the next."""


def attend(
    projected: torch.Tensor,
    context: torch.Tensor,
    cached: CachedHeads,
    *,
    query_count: int,
    kv_count: int,
    head_size: int,
    bias: torch.Tensor | None,
    query_norm: torch.Tensor | None,
    key_norm: torch.Tensor | None,
    norm_epsilon: float,
    cosine: torch.Tensor,
    sine: torch.Tensor,
    first_position: int,
    sliding_window: int,
) -> None:
    """Write the rows' keys and values where they belong, and into `context` what their queries attend to.

    Args: projected: [row_count, (query_count + 2 * kv_count) * head_size] of neighbouring rows of one sequence,
    changed in place; context: [row_count, query_count * head_size]; bias: of `projected`; norms: of each head;
    cosine, sine: [row_count, 1, head_size], the first half of each sine negated; first_position: of the first row;
    sliding_window: 0 for none.
    """
    attention = Attention(
        projected.data_ptr(), projected.shape[0], query_count, kv_count, head_size, _address(bias),
        _address(query_norm), _address(key_norm), norm_epsilon, cosine.data_ptr(), sine.data_ptr(),
        cached.keys, cached.values, cached.head_pitch, first_position, sliding_window, context.data_ptr(),
    )  # fmt: skip
    refused = _functions().shardmesh_attend(attention)
    assert not refused, "the caller has checked head_size with can_attend"


def can_attend(rows: torch.Tensor, head_size: int) -> bool:
    """Tell whether `attend` takes such rows and heads."""
    return can_step(rows) and head_size <= MOST_HEAD_SIZE


def add_parts(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, bool]:
    """Return the sum of tensors of one shape in their order, new, and whether all of it is finite."""
    total = torch.empty(parts[0].shape)
    addresses = (ctypes.c_void_p * len(parts))(*[part.data_ptr() for part in parts])
    return total, not _functions().shardmesh_add(addresses, len(parts), total.numel(), total.data_ptr())


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
    _functions().shardmesh_normalize(
        hidden.data_ptr(), _address(addend), weight.data_ptr(), row_count, width, epsilon, normed.data_ptr()
    )
    return normed


def _functions() -> ctypes.CDLL:
    functions = matmul.kernels.functions
    assert functions is not None
    return functions


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
