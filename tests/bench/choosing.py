"""How long does it take to choose the next tokens of 32 sequences, beside the sweep that they come from?

Covers: the pass in C and numpy's way, on logits like a model's, by options, on one thread and two; taking turns.
Does not cover: whole sweeps: the least that one takes, its products with SmolLM2's float32 weights, is what is compared
with, of which the head's are measured and the others counted.
"""

from __future__ import annotations

import statistics
import time
from array import array
from collections.abc import Callable

import numpy as np

from common.compute import matmul
from common.compute.matmul import multiply
from common.weights.stored_numbers import Floats
from coordinator.engine.sampler import Sampler, SamplingParams, Turn, choose_together
from tests.bench.report import Bar, Result, Settings, Table

ROW_COUNT, VOCAB_SIZE, HIDDEN_SIZE = 32, 49_152, 576
WEIGHT_COUNT = 134_515_008
"""Of SmolLM2, its head among them once."""
MOST_PERCENT = 5.0
"""Of a sweep, at default options."""
DEFAULT = "default: p 0.9"
OPTIONS = {
    DEFAULT: SamplingParams(),
    "temperature 0.8, p 0.9": SamplingParams(temperature=0.8),
    "temperature 2, p 0.95": SamplingParams(temperature=2, top_p=0.95),
    "p 1": SamplingParams(top_p=1),
    "k 50, p 0.9": SamplingParams(top_k=50),
    "min-p 0.05, p 1": SamplingParams(min_p=0.05, top_p=1),
    "penalties, 500 tokens so far": SamplingParams(repetition_penalty=1.2, frequency_penalty=0.2),
    "20 log probabilities": SamplingParams(logprobs=20),
}


def measure(settings: Settings) -> Result:
    """Choose with each option in turn, in each way."""
    result = Result(name=f"Next tokens of {ROW_COUNT} sequences, {VOCAB_SIZE:,} tokens to choose from")
    if matmul.kernels.functions is None:
        result.notes = [f"not measured: there are no native kernels here: {matmul.kernels.reason}"]
        return result
    random = np.random.default_rng(0)
    logits: Floats = random.standard_normal((ROW_COUNT, VOCAB_SIZE), np.float32) * np.float32(3)
    tokens = array("i", random.integers(0, VOCAB_SIZE, 500).tolist())
    lines = []
    try:
        for name, params in OPTIONS.items():
            turns = [Turn(Sampler(params, seed), 7, tokens if params.penalizes else array("i")) for seed in range(32)]
            seconds = _seconds_of(logits, turns, settings.rounds)
            lines.append((name, *(f"{1000 * one:.2f}" for one in seconds)))
            result.numbers[name] = seconds
            if name == DEFAULT:
                result.bars.append(_beside_sweep(logits, turns, settings.rounds))
    finally:
        matmul.set_thread_count(1)
    header = ("options", "numpy, ms", "one pass, ms", "on two threads, ms")
    result.tables = [Table(title="Medians of rounds", header=header, rows=lines)]
    return result


def _seconds_of(logits: Floats, turns: list[Turn], round_count: int) -> list[float]:
    """Return what numpy's way takes, and the pass on one thread and two."""

    def plain() -> None:
        for turn, row in zip(turns, logits, strict=True):
            turn.sampler.plain_choice(row, turn)

    def in_one_pass(thread_count: int) -> Callable[[], object]:
        def run() -> object:
            matmul.set_thread_count(thread_count)
            return choose_together(logits, turns)

        return run

    contenders = (plain, in_one_pass(1), in_one_pass(2))
    rounds = [[_seconds(run) for run in contenders] for _ in range(1 + round_count)][1:]
    return [statistics.median(one) for one in zip(*rounds, strict=True)]


def _beside_sweep(logits: Floats, turns: list[Turn], round_count: int) -> Bar:
    """Return which part of a sweep's products the pass takes, both on two threads."""
    matmul.set_thread_count(2)
    rows = np.random.default_rng(1).standard_normal((ROW_COUNT, HIDDEN_SIZE), np.float32)
    head = np.random.default_rng(2).standard_normal((HIDDEN_SIZE, VOCAB_SIZE), np.float32)
    ratios = []
    for _ in range(1 + round_count):
        sweep = _seconds(lambda: multiply(rows, head)) * WEIGHT_COUNT / head.size
        ratios.append(100 * _seconds(lambda: choose_together(logits, turns)) / sweep)
    return Bar(
        name=f"choosing at default options, of the products of a sweep ({1000 * sweep:.0f} ms in the last round)",
        measured=statistics.median(ratios[1:]), needed=MOST_PERCENT, at_least=False, unit=" %",
    )  # fmt: skip


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
