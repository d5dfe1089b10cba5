"""The one matrix product of the project: rows times a weight matrix that is stored [in, out].

Covers: which library computes it, and how many threads that library may use.
Does not cover: where weights come from (weights/), what the product means (shardnode/kernels.py, coordinator/head.py).

One row, the decode step of one conversation, is bound by memory, and there one thread of numpy's OpenBLAS reads a
matrix that is not in cache at 12-24 GB/s, where torch's MKL reads it at 8-14 with one thread and at 9-21 with two
(x86-64, 2 cores, matrices of 0.4-60 MB). More rows are bound by arithmetic and go to torch, and so does everything
where more threads may compute. OpenBLAS itself gets one thread only: its threads, as MKL's, spin for milliseconds
after each product, on cores that other processes need.
"""

from __future__ import annotations

import numpy as np
import torch
from threadpoolctl import threadpool_limits

FEW_THREADS = 2
"""One OpenBLAS thread reads about as fast as this many of torch's: memory is what limits both."""


def set_thread_count(thread_count: int) -> None:
    """Let torch compute with `thread_count` threads, and numpy's OpenBLAS with one."""
    torch.set_num_threads(thread_count)
    threadpool_limits(1, user_api="blas")


def multiply(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return rows @ weight, new float32 [row_count, out].

    Args: rows: float32 [row_count, in]; weight: float32 [in, out], contiguous, on the same device.
    """
    if rows.shape[0] == 1 and torch.get_num_threads() <= FEW_THREADS and rows.device.type == "cpu":
        return torch.from_numpy(np.dot(rows.numpy(), weight.numpy()))
    return torch.mm(rows, weight)
