"""How fast are quantized files: beside llama.cpp on the same file, beside float16 slices, and beside the disk?

Covers: resident decoding of one node with two threads (SmolLM2's Q4_1; Qwen2.5-Coder's Q4_K_M, where the file is),
with rows of float32 and of int8, in turns with llama.cpp's own `llama-bench`, where --llama-bench names one; the
Llama-3.2-3B shape in Q4_K_M's mixture, 4 nodes and coordinator in 450 MB from disk, beside raw reads of the same files
and its float16 slices; a prompt of 512.
Does not cover: kernels alone (kernels.py), full precision (speed.py, big.py).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from coordinator.models.local_model import LocalModel, ModelOptions
from tests.bench.command_runs import CommandRun, run_command
from tests.bench.inputs import MODEL_DIRECTORY, MODEL_FILE, PROMPT, REPOSITORY, long_prompt
from tests.bench.memory_sum import streamed_files
from tests.bench.raw_disk import READ_BYTES, forget_cached, read_raw
from tests.bench.report import DISTURBED, QUIET_SHARE, Bar, BenchBroken, Result, Settings, Spread, Table
from tests.golden.qwen2_coder_prompts import MODEL as QWEN
from tests.support.quantized_shapes import LLAMA_3_2_3B, ensure_quantized

FILES = {"SmolLM2-135M Q4_1": MODEL_DIRECTORY / MODEL_FILE, "Qwen2.5-Coder-0.5B Q4_K_M": QWEN}
THREADS, TOKENS = 2, 64
OF_LLAMA_CPP = 0.9
BIG = REPOSITORY / "models" / "bench-3b-q4_k_m" / "model.gguf"
BIG_TOKENS = 12
GROUP_BYTES, BUDGET = 450_000_000, "435MB"
RAW_WAYS = ((4, READ_BYTES), (2, 1 << 20), (8, 1 << 20))
RAW_BYTES = 4_000_000_000
OF_DISK, OF_FLOAT16, OF_FIRST_TOKEN = 1.15, 2.7, 1.3
PROMPT_TOKENS = 512
OWN, FLOAT16 = "gguf", "float16"


@dataclass(kw_only=True)
class _Turns:
    own: dict[str, list[float]] = field(default_factory=dict)
    """Tokens a second, by file."""
    llama_cpp: dict[str, list[float]] = field(default_factory=dict)
    quiet: dict[str, list[bool]] = field(default_factory=dict)
    big: dict[str, list[CommandRun]] = field(default_factory=dict)
    raw: list[float] = field(default_factory=list)
    """Bytes a second, of the fastest way around each turn."""
    first: dict[str, list[float]] = field(default_factory=dict)
    """Seconds to the first token of a long prompt, all weights in memory."""


def measure(settings: Settings) -> Result:
    """Run all in turns. Raises: BenchBroken: something fails."""
    turns = _Turns()
    files = {name: path for name, path in FILES.items() if path.is_file()}
    for number in range(1, settings.rounds + 1):
        for name, path in files.items():
            print(f"quantized: round {number} of {settings.rounds}: {name} ...", end=" ", flush=True)
            for row, activations in _rows_of(name).items():
                run = _generate(
                    path, "--world-size", "1", "--memory-window", "0", "--activations", activations, tokens=TOKENS
                )
                turns.own.setdefault(row, []).append(1 / run.seconds_per_token)
                turns.quiet.setdefault(row, []).append(run.others_share <= QUIET_SHARE)
            if settings.llama_bench is not None:
                turns.llama_cpp.setdefault(name, []).append(_llama_cpp(settings.llama_bench, path))
            theirs = turns.llama_cpp.get(name, [0.0])[-1]
            ours = ", ".join(f"{turns.own[row][-1]:.1f} ({activations})" for row, activations in _rows_of(name).items())
            print(f"{ours} tokens/s, llama.cpp {theirs:.1f}", flush=True)
    if not settings.is_quick:
        for _ in range(min(2, settings.rounds)):
            _big_round(turns)
    return _result(turns, files)


def _rows_of(name: str) -> dict[str, str]:
    """Return the rows of a file in the table, and the activations of each."""
    return {name: "float32", f"{name}, int8 activations": "int8"}


def _generate(model: Path, *options: str, tokens: int, prompt: str = PROMPT, limit: int | None = None) -> CommandRun:
    return run_command(
        ["generate", "--json", "--temperature", "0", "--ignore-eos", "--length", str(tokens), "--model", str(model),
         "--prompt", prompt, "--save-dir", str(model.parent / "bench-quantized"), *options], limit,
    )  # fmt: skip


def _llama_cpp(program: Path, model: Path) -> float:
    """Return llama.cpp's tokens a second. Raises: BenchBroken: it fails."""
    command = [
        str(program),
        "-m",
        str(model),
        "-t",
        str(THREADS),
        "-p",
        "0",
        "-n",
        str(TOKENS),
        "-r",
        "1",
        "-o",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchBroken(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return float(json.loads(done.stdout)[0]["avg_ts"])


def _big_round(turns: _Turns) -> None:
    ensure_quantized(BIG, LLAMA_3_2_3B)
    for dtype in (OWN, FLOAT16):
        directory = BIG.parent / f"split-{dtype}"
        model = LocalModel(ModelOptions(model=BIG, world_size=4, save_dir=directory.name, weights_dtype=dtype))
        model.slice(lambda done, total: None)
        model.close()
        files = streamed_files(directory)
        reads = [read_raw(files, thread_count=n, read_bytes=size, most_bytes=RAW_BYTES) for n, size in RAW_WAYS]
        forget_cached(files)
        place = ("--save-dir", directory.name, "--weights-dtype", dtype, "--world-size", "4")
        turns.big.setdefault(dtype, []).append(
            _generate(BIG, *place, "--memory-budget", BUDGET, tokens=BIG_TOKENS, limit=GROUP_BYTES)
        )
        if dtype == OWN:
            turns.raw.append(max(read.bytes_per_second for read in reads))
        long = long_prompt(BIG, PROMPT_TOKENS)
        first = _generate(BIG, *place, "--memory-window", "0", tokens=2, prompt=long)
        turns.first.setdefault(dtype, []).append(first.document["timings"]["ttft_seconds"])
        print(
            f"quantized: {LLAMA_3_2_3B.name} {dtype}: {turns.big[dtype][-1].seconds_per_token:.2f} s a token, "
            f"{turns.big[dtype][-1].peak_bytes / 1e6:.0f} MB; first token {turns.first[dtype][-1]:.1f} s",
            flush=True,
        )


def _result(turns: _Turns, files: dict[str, Path]) -> Result:
    result = Result(name="Quantized files: their own blocks, on disk, in memory and in the kernels")
    result.tables = [Table(
        title=f"Resident decoding, one node, {THREADS} threads, tokens/s",
        header=("file", "ours", "least", "most", "llama.cpp", "least", "most"),
        rows=[(row, *Spread.of(turns.own[row]).cells(1), *_cells(turns.llama_cpp.get(name)))
              for name in files for row in _rows_of(name)],
    )]  # fmt: skip
    for name, all_theirs in turns.llama_cpp.items():
        for row in _rows_of(name):
            ratios = [own / theirs for own, theirs in zip(turns.own[row], all_theirs, strict=True)]
            result.bars.append(Bar(
                name=f"{row}: ours / llama.cpp, of {len(ratios)} turns,", measured=median(ratios), needed=OF_LLAMA_CPP,
                undecided="" if any(turns.quiet[row]) else DISTURBED,
            ))  # fmt: skip
    if turns.big:
        result.tables.append(_big_table(turns))
        result.bars += _big_bars(turns)
    result.numbers = {
        "own": turns.own,
        "llama_cpp": turns.llama_cpp,
        "raw": turns.raw,
        "first": turns.first,
        "big": {dtype: [run.seconds_per_token for run in runs] for dtype, runs in turns.big.items()},
    }
    return result


def _cells(values: Sequence[float] | None) -> tuple[str, ...]:
    return ("", "", "") if not values else Spread.of(values).cells(1)


def _slice_bytes(dtype: str) -> int:
    return sum(path.stat().st_size for path in streamed_files(BIG.parent / f"split-{dtype}"))


def _big_table(turns: _Turns) -> Table:
    rows: list[tuple[str, ...]] = [
        (dtype, *Spread.of([run.seconds_per_token for run in runs]).cells(2),
         f"{_slice_bytes(dtype) / 1e9:.2f}", f"{max(run.peak_bytes for run in runs) / 1e6:.0f}",
         f"{median(turns.first[dtype]):.1f}")
        for dtype, runs in turns.big.items()
    ]  # fmt: skip
    return Table(
        title=f"{LLAMA_3_2_3B.name}'s shape, Q4_K_M's mixture, 4 nodes and coordinator in 450 MB, from disk",
        header=("slices", "s a token", "least", "most", "GB", "peak MB", f"first of {PROMPT_TOKENS}, s, in memory"),
        rows=rows,
    )


def _big_bars(turns: _Turns) -> list[Bar]:
    own, half = ([run.seconds_per_token for run in turns.big[dtype]] for dtype in (OWN, FLOAT16))
    first: dict[str, Any] = turns.first
    of_disk = [seconds * raw / _slice_bytes(OWN) for seconds, raw in zip(own, turns.raw, strict=True)]
    return [
        Bar(name="a token from disk / raw reading of the same bytes", measured=median(of_disk), needed=OF_DISK,
            at_least=False),
        Bar(name="a token from disk: float16 slices / the file's blocks", measured=median(half) / median(own),
            needed=OF_FLOAT16),
        Bar(name=f"first token after {PROMPT_TOKENS}: the file's blocks / float16",
            measured=median(first[OWN]) / median(first[FLOAT16]), needed=OF_FIRST_TOKEN, at_least=False),
    ]  # fmt: skip
