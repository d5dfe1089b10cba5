"""How long does a product of many rows take, ours or numpy's, in a process in which nothing else computes?

    python -m tests.bench.products ours bfloat16 2 512

Covers: one contender per process: OpenBLAS's threads spin for a while after each product, so that beside them, in turns
within one process, our two threads had one core. Does not cover: judging (kernels.py).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from common.compute import matmul
from common.compute.matmul import multiply, multiply_packed
from common.weights.encodings import is_encoded
from common.weights.packed_blocks import pack
from common.weights.stored_numbers import narrowed
from tests.support.encoded_weights import random_rows

PROMPT_ROWS, DEPTH, WIDTH = 512, 1536, 1344
OURS, BLAS = "ours", "blas"
TURNS, FIRST_TURNS = 30, 3
LIMIT_SECONDS = 60


def seconds_of(contender: str, dtype: str, thread_count: int, row_count: int = PROMPT_ROWS) -> float:
    """Return the median seconds of a product in a process of its own. Raises: CalledProcessError: it failed."""
    command = [sys.executable, "-m", "tests.bench.products", contender, dtype, str(thread_count), str(row_count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_SECONDS).stdout)


def _measured(contender: str, dtype: str, thread_count: int, row_count: int) -> float:
    noise = np.random.default_rng(1).standard_normal
    rows, weights = (noise(shape, dtype=np.float32) for shape in ((row_count, DEPTH), (DEPTH, WIDTH)))
    run: Callable[[], object]
    if contender == OURS:
        matmul.set_thread_count(thread_count)
        if is_encoded(dtype):
            packed = pack(dtype, random_rows(dtype, WIDTH, DEPTH), DEPTH)
            run = lambda: multiply_packed(rows, packed, dtype, DEPTH, WIDTH)  # noqa: E731
        else:
            stored = narrowed(weights, dtype)
            run = lambda: multiply(rows, stored)  # noqa: E731
    else:
        run = lambda: np.dot(rows, weights)  # noqa: E731
    seconds = []
    with threadpool_limits(thread_count, user_api="blas"):
        for _ in range(FIRST_TURNS + TURNS):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[FIRST_TURNS:])


if __name__ == "__main__":
    print(_measured(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
