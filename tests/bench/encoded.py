"""How fast do our kernels multiply with weights in GGUF's blocks, a few rows and many?

Covers: every encoding; one row with weights that no cache holds, 8, 32 and a prompt's 512 rows beside numpy's BLAS of
the same shape, which multiplies float32; one thread and two.
Does not cover: floats (kernels.py), whole tokens (speed.py).
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from common.compute import matmul
from common.compute.matmul import multiply_packed
from common.weights.encodings import ENCODINGS
from common.weights.packed_blocks import pack
from tests.bench.products import BLAS, DEPTH, OURS, PROMPT_ROWS, WIDTH, seconds_of
from tests.bench.report import Bar, Settings, Table
from tests.support.encoded_weights import random_rows

THREAD_COUNTS = (1, 2)
ROW_COUNTS = (8, 32, PROMPT_ROWS)
LEAST_OF_BLAS = {8: 0.7, 32: 0.8}
"""Of the multiply-adds a second of a float32 product."""
LEAST_GIGA_WEIGHTS = 6.0
"""A second and core, of one row: what llama.cpp reaches with Q4_1 on the machine that DECISIONS' figures are of."""
JUDGED = ("q8_0", "q4_0", "q4_1", "q5_0", "q4_k", "q6_k")
MOST_ROUNDS = 3
"""Of each of the many processes that this takes."""
MATRIX_COUNT = 150
"""Of at least half a megabyte each: more than any cache that one core has to itself."""


def measure_encoded(settings: Settings) -> tuple[Table, list[Bar]]:
    """Return the table and the bars of every encoding."""
    rows, bars, round_count = [], [], min(settings.rounds, MOST_ROUNDS)
    blas = {count: [seconds_of(BLAS, "float32", 1, count) for _ in range(round_count)] for count in ROW_COUNTS}
    for encoding in ENCODINGS:
        alone = [_giga_weights(encoding, thread_count, round_count) for thread_count in THREAD_COUNTS]
        ratios = {}
        for count in ROW_COUNTS:
            ours = [seconds_of(OURS, encoding, 1, count) for _ in range(round_count)]
            ratios[count] = statistics.median(blas[count]) / statistics.median(ours)
        rows.append((encoding, *(f"{speed:.1f}" for speed in alone), *(f"{ratio:.2f}" for ratio in ratios.values())))
        if encoding in JUDGED:
            bars.append(Bar(name=f"1 row, 1 thread ({encoding})", measured=alone[0], needed=LEAST_GIGA_WEIGHTS,
                            unit=" G weights/s"))  # fmt: skip
            bars += [
                Bar(
                    name=f"{count} rows beside numpy's BLAS ({encoding})",
                    measured=ratios[count],
                    needed=least,
                    unit="x",
                )
                for count, least in LEAST_OF_BLAS.items()
            ]
    header = (
        "encoding", *(f"1 row, {count} threads: G weights/s" for count in THREAD_COUNTS),
        *(f"{count} rows : BLAS" for count in ROW_COUNTS),
    )  # fmt: skip
    return Table(title="Weights in GGUF's blocks", header=header, rows=rows), bars


def _giga_weights(encoding: str, thread_count: int, round_count: int) -> float:
    """Return the median over rounds of one row's weights a second, matrix after matrix."""
    matmul.set_thread_count(thread_count)
    packed = pack(encoding, random_rows(encoding, WIDTH, DEPTH), DEPTH)
    row = np.random.default_rng(1).standard_normal((1, DEPTH), dtype=np.float32)
    matrices = [packed.copy() for _ in range(MATRIX_COUNT)]
    seconds = []
    for _ in range(1 + round_count):
        started = time.perf_counter()
        for matrix in matrices:
            multiply_packed(row, matrix, encoding, DEPTH, WIDTH)
        seconds.append(time.perf_counter() - started)
    return MATRIX_COUNT * DEPTH * WIDTH / 1e9 / statistics.median(seconds[1:])
