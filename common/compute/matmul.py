"""The one matrix product of the project: rows times a weight matrix that is stored [in, out].

Covers: who computes it, how many threads that may use, weights of 16 bits without a float32 copy of them.
Does not cover: where weights come from (weights/), what the product means (shardnode/work/kernels.py,
coordinator/engine/head.py), the kernels of our own (native/).

A few rows are bound by memory: there our own kernels read each weight once, in the type it is stored in. Many rows are
bound by arithmetic and go to torch; weights of 16 bits are widened for it in slabs that stay in the cache. Where our
kernels are missing, one thread of numpy's OpenBLAS computes single rows: it reads faster than torch's MKL. OpenBLAS
gets one thread only: its threads, as MKL's, spin for milliseconds after each product, on cores others need.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from common.native.library import WEIGHT_KINDS, shared

MOST_NATIVE_ROWS = 32
"""Up to this many rows our own kernels are faster than torch, whatever the type of the weights."""
FEW_THREADS = 2
"""One OpenBLAS thread reads about as fast as this many of torch's: memory is what limits both."""
SLAB_BYTES = 2 * 1024 * 1024
"""Of float32 weights that torch is given at a time, when they are stored in 16 bits."""

kernels = shared()
"""Of our own; replaced by `absent(...)` where tests want none."""
_KINDS = {getattr(torch, name): kind for kind, name in enumerate(WEIGHT_KINDS)}
_own = threading.local()


@dataclass
class _ThreadCounts:
    many_rows: int = 1


_thread_counts = _ThreadCounts()


def set_thread_count(thread_count: int, *, few_rows: int | None = None) -> None:
    """Let torch compute with `thread_count` threads, numpy's OpenBLAS with one.

    Args: few_rows: threads of our own kernels; as many as torch's if not given.
    """
    _thread_counts.many_rows = thread_count
    torch.set_num_threads(thread_count)
    threadpool_limits(1, user_api="blas")
    kernels.set_thread_count(few_rows if few_rows is not None else thread_count)


def use_threads_for(row_count: int) -> None:
    """Let torch compute the next operations of this process with all threads, or with one where rows are few.

    Few rows gain nothing from torch's threads, which wait for each other by spinning on cores that others need.
    """
    wanted = 1 if row_count <= MOST_NATIVE_ROWS else _thread_counts.many_rows
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)


def functions() -> ctypes.CDLL:
    """Return our kernels' functions; only for who has made sure that there are any."""
    assert kernels.functions is not None
    return kernels.functions


def multiply(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return rows @ weight, new float32 [row_count, out].

    Args: rows: float32 [row_count, in]; weight: [in, out], contiguous, on the same device; float32, or on the CPU
    also float16 or bfloat16.
    """
    if not rows.is_cpu:
        return torch.mm(rows, weight)
    if kernels.functions is not None and rows.shape[0] <= MOST_NATIVE_ROWS:
        return _natively(rows, weight)
    if weight.dtype is not torch.float32:
        return _by_slabs(rows, weight)
    if rows.shape[0] == 1 and torch.get_num_threads() <= FEW_THREADS:
        return torch.from_numpy(np.dot(rows.numpy(), weight.numpy()))
    return torch.mm(rows, weight)


def _natively(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    depth, width = weight.shape
    assert rows.dtype is torch.float32
    assert rows.shape[1] == depth
    assert weight.is_contiguous()
    row_pitch, item_pitch = rows.stride()
    if item_pitch != 1:
        rows = rows.contiguous()
        row_pitch = depth
    product = torch.empty(rows.shape[0], width)
    functions().shardmesh_multiply(
        rows.data_ptr(), row_pitch, rows.shape[0], weight.data_ptr(), _KINDS[weight.dtype], depth, width,
        product.data_ptr(),
    )  # fmt: skip
    return product


def _by_slabs(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Widen some rows of `weight` at a time into memory that every call of this thread uses again."""
    depth, width = weight.shape
    product = torch.zeros((rows.shape[0], width))
    slab_depth = max(1, SLAB_BYTES // 4 // max(1, width))
    scratch: torch.Tensor | None = getattr(_own, "scratch", None)
    if scratch is None or scratch.numel() < slab_depth * width:
        with torch.inference_mode(mode=False):  # what is made in inference mode may not be written to outside of it
            scratch = _own.scratch = torch.empty(max(SLAB_BYTES // 4, slab_depth * width))
    for first in range(0, depth, slab_depth):
        stored = weight[first : first + slab_depth]
        slab = scratch[: stored.numel()].view(stored.shape).copy_(stored)
        product.addmm_(rows[:, first : first + slab_depth], slab)
    return product
