"""How fast do our own kernels multiply, beside reading the same memory, and what do more rows cost?

Covers: 1, 2, 4 and 8 rows, and a prompt's 512 beside numpy's BLAS; every type of weights, one thread and two; taking
turns, medians of the ratios of rounds.
Does not cover: weights in GGUF's blocks (encoded.py), whole tokens (speed.py). Weights are many matrices walked in
turn: far more than any cache holds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from common.compute import matmul
from common.compute.matmul import kernels, multiply
from common.weights.stored_numbers import NUMPY_DTYPES, Floats, Stored, narrowed
from tests.bench.encoded import measure_encoded
from tests.bench.products import BLAS, OURS, PROMPT_ROWS, seconds_of
from tests.bench.report import Bar, Result, Settings, Table

THREAD_COUNTS = (1, 2)
ROW_COUNTS = (1, 2, 4, 8)
MATRIX_BYTES = 8 * 1024 * 1024
MATRIX_COUNT = 24
DEPTH = 1536
WIDTH_STEP = 32
"""Widths of models are multiples of a head's or of more; others cost up to a tenth more where vectors cross lines."""
PLAIN_SUM = "plain sum"
LEAST_OF_BLAS = 0.9
"""Of numpy's OpenBLAS, over float32 weights: its sums depend on how a prompt is cut, ours do not."""
LEAST_OF_SUM = 0.7
"""Of the speed of a plain sum over the same memory, for one row."""
MOST_COSTS = {4: 1.9, 8: 2.4}
"""How many times the time of one row that many rows may take."""
ROUNDS_PER_SETTING = 3
"""A turn takes 10 ms, so there can be more of them than of whole answers."""

Turns = dict[str, list[float]]


def measure(settings: Settings) -> Result:
    """Walk the matrices with each contender in turn."""
    result = Result(name="Matrix kernels: a few rows times weights that are not in the cache")
    if kernels.functions is None:
        result.notes = [f"not measured: there are no native kernels here: {kernels.reason}"]
        return result
    rows_of_table = []
    try:
        for name in NUMPY_DTYPES:
            matrices = _matrices(name)
            for thread_count in THREAD_COUNTS:
                matmul.set_thread_count(thread_count)
                turns = _take_turns(matrices, settings.rounds * ROUNDS_PER_SETTING)
                row, bars, numbers = _judge(name, thread_count, turns, sum(matrix.nbytes for matrix in matrices) / 1e9)
                rows_of_table.append(row)
                result.bars += bars
                result.numbers[f"{name}, {thread_count} threads"] = numbers
                result.bars.append(_beside_blas(name, thread_count, settings.rounds))
    finally:
        matmul.set_thread_count(1)
    header = ("weights", "threads", "sum GB/s", "1 row GB/s", "1 row : sum", *(f"{n} rows : 1" for n in ROW_COUNTS[1:]))
    encoded_table, encoded_bars = measure_encoded(settings)
    result.bars += encoded_bars
    result.tables = [Table(title="Medians of rounds", header=header, rows=rows_of_table), encoded_table]
    result.notes = [f"instruction set: {kernels.variant}; {MATRIX_COUNT} matrices of about 8 MiB, walked in turn"]
    return result


def _beside_blas(name: str, thread_count: int, round_count: int) -> Bar:
    """Return how fast a prompt's rows are multiplied, beside numpy with float32 weights and as many threads."""
    ratios = [
        seconds_of(BLAS, name, thread_count) / seconds_of(OURS, name, thread_count) for _ in range(round_count)
    ]  # fmt: skip
    where = f"{name}, {thread_count} thread{'s' if thread_count > 1 else ''}"
    return Bar(name=f"{PROMPT_ROWS} rows beside numpy's BLAS ({where}; {min(ratios):.2f} to {max(ratios):.2f})",
               measured=statistics.median(ratios), needed=LEAST_OF_BLAS, unit="x")  # fmt: skip


def _noise(*shape: int) -> Floats:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def _matrices(dtype: str) -> list[Stored]:
    """Return the weights, [in, out]."""
    width = MATRIX_BYTES // NUMPY_DTYPES[dtype].itemsize // DEPTH // WIDTH_STEP * WIDTH_STEP
    numbers = narrowed(_noise(DEPTH, width), dtype)
    return [numbers.copy() for _ in range(MATRIX_COUNT)]


def _take_turns(matrices: list[Stored], round_count: int) -> Turns:
    """Return the seconds of every contender in every round, after a round that does not count."""
    contenders: dict[str, Callable[[Stored], object]] = {PLAIN_SUM: _plain_sum}
    for row_count in ROW_COUNTS:
        contenders[str(row_count)] = _product(_noise(row_count, DEPTH))
    turns: Turns = {name: [] for name in contenders}
    for _ in range(1 + round_count):
        for name, run in contenders.items():
            started = time.perf_counter()
            for matrix in matrices:
                run(matrix)
            turns[name].append(time.perf_counter() - started)
    return {name: seconds[1:] for name, seconds in turns.items()}


def _plain_sum(matrix: Stored) -> float:
    return kernels.sum(matrix.ctypes.data, matrix.nbytes // 4)


def _product(rows: Floats) -> Callable[[Stored], object]:
    return lambda matrix: multiply(rows, matrix)


def _judge(
    name: str, thread_count: int, turns: Turns, gigabytes: float
) -> tuple[tuple[str, ...], list[Bar], dict[str, Any]]:
    """Return the line of the table, the bars and the numbers of one type and thread count."""

    def ratio(above: str, below: str) -> float:
        return statistics.median(a / b for a, b in zip(turns[above], turns[below], strict=True))

    of_sum = ratio(PLAIN_SUM, "1")
    costs = {row_count: ratio(str(row_count), "1") for row_count in ROW_COUNTS[1:]}
    speeds = [gigabytes / statistics.median(turns[contender]) for contender in (PLAIN_SUM, "1")]
    row = (
        name, str(thread_count), *(f"{speed:.1f}" for speed in speeds), f"{of_sum:.2f}",
        *(f"{cost:.2f}" for cost in costs.values()),
    )  # fmt: skip
    where = f"{name}, {thread_count} thread{'s' if thread_count > 1 else ''}"
    bars = [Bar(name=f"1 row beside a plain sum ({where})", measured=of_sum, needed=LEAST_OF_SUM, unit="x")]
    bars += [
        Bar(name=f"{n} rows beside 1 ({where})", measured=costs[n], needed=most, at_least=False, unit="x")
        for n, most in MOST_COSTS.items()
    ]
    return row, bars, {"of_sum": of_sum, "costs": costs, "seconds": turns}
