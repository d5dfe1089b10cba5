"""The one matrix product of the project: rows times a weight matrix that is stored [in, out].

Covers: which library computes it, and how many threads that library may use.
Does not cover: where weights come from (weights/), what the product means (shardnode/kernels.py, coordinator/head.py).

One row, the decode step of one conversation, is bound by memory, and there numpy's OpenBLAS reads a matrix at
14-18 GB/s where torch's MKL reads it at 8-14 (x86-64, one core, 0.4-1.8 MB matrices that are not in cache). More rows
are bound by arithmetic and go to torch. So does everything where more than one thread may compute: OpenBLAS's threads
spin for milliseconds after each product, on cores that other processes need.
"""

from __future__ import annotations

import numpy as np
import torch
from threadpoolctl import threadpool_limits


def set_thread_count(thread_count: int) -> None:
    """Let torch compute with `thread_count` threads, and numpy's OpenBLAS with one."""
    torch.set_num_threads(thread_count)
    threadpool_limits(1, user_api="blas")


def multiply(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return rows @ weight, new float32 [row_count, out].

    Args: rows: float32 [row_count, in]; weight: float32 [in, out], contiguous, on the same device.
    """
    if rows.shape[0] == 1 and torch.get_num_threads() == 1 and rows.device.type == "cpu":
        return torch.from_numpy(np.dot(rows.numpy(), weight.numpy()))
    return torch.mm(rows, weight)
