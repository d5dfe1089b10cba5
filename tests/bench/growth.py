"""Does any process grow while one long answer is written?

Covers: resident memory of coordinator and nodes over 2,000 tokens of SmolLM2 on four nodes with window 2, from the
100th token on, without the keys and values, whose pages are committed as they are written.
Does not cover: many answers one after the other, speed.

The run tells when each token came only at its end; samples of memory are laid over that, counted from the end.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from statistics import median

import psutil

from common.weights.manifest import read_manifest
from tests.bench.command_runs import CommandRun, run_command
from tests.bench.inputs import MODEL_DIRECTORY, PROMPT, sliced
from tests.bench.report import Bar, BenchBroken, Result, Settings, Table

WORLD_SIZE = 4
TOKENS = 2000
SETTLED_TOKENS = 100
MOST_GROWTH_BYTES = 5_000_000
CLOSING_SECONDS = 3.0
"""Before the end: the answer is written and everything closed meanwhile, which is no growth."""
FIRST_SHARE = 0.1
"""Of the settled samples: their median is where growth is counted from, so that one odd sample decides nothing."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One process."""

    name: str
    settled_bytes: int
    most_growth_bytes: int
    """Of any later sample, keys and values aside."""
    end_growth_bytes: int
    kv_bytes: int


def measure(settings: Settings) -> Result:
    """Run the long answer once. Raises: BenchBroken."""
    samples: list[tuple[float, dict[int, int]]] = []

    def sample(seconds: float, processes: Sequence[psutil.Process]) -> None:
        sizes = {}
        for process in processes:
            with contextlib.suppress(psutil.Error):
                sizes[process.pid] = process.memory_info().rss
        samples.append((seconds, sizes))

    directory = sliced(WORLD_SIZE)
    run = run_command([
        "generate", "--json", "--temperature", "0", "--ignore-eos", "--length", str(TOKENS), "--prompt", PROMPT,
        "--model", str(MODEL_DIRECTORY), "--world-size", str(WORLD_SIZE), "--memory-window", "2",
        "--save-dir", str(directory), "--weights-dtype", "float32",
    ], sample=sample)  # fmt: skip
    if len(run.token_ids) != TOKENS:
        raise BenchBroken(f"{len(run.token_ids)} tokens instead of {TOKENS}")
    moments = token_moments(run)
    grown = []
    for name, memory in run.document["memory"].items():
        if "process_id" in memory:
            rank = int(name.removeprefix("node")) if name.startswith("node") else None
            kv_bytes = 0 if rank is None else _kv_bytes_per_token(rank)
            sizes = [(seconds, own[memory["process_id"]]) for seconds, own in samples if memory["process_id"] in own]
            grown.append(growth(name, sizes, moments, kv_bytes))
    return _result(run, grown)


def token_moments(run: CommandRun) -> list[float]:
    """Return when each token came, in seconds since the start; the last one just before the end."""
    seconds: list[float] = run.document["timings"]["seconds_per_token"]
    ends = list(accumulate(seconds, initial=0.0))
    return [run.seconds - ends[-1] + end for end in ends]


def growth(name: str, sizes: Sequence[tuple[float, int]], moments: Sequence[float], kv_bytes_per_token: int) -> Growth:
    """Return how a process grew from its 100th token to the last. Raises: BenchBroken: too few samples."""
    settled = []
    for seconds, size in sizes:
        tokens = bisect_right(moments, seconds)
        if tokens >= SETTLED_TOKENS and seconds < moments[-1] - CLOSING_SECONDS:
            settled.append(size - tokens * kv_bytes_per_token)
    if len(settled) < 1 / FIRST_SHARE:
        raise BenchBroken(f"only {len(settled)} samples of {name}")
    count = max(1, int(FIRST_SHARE * len(settled)))
    start = int(median(settled[:count]))
    return Growth(
        name=name, settled_bytes=start, most_growth_bytes=max(settled) - start,
        end_growth_bytes=int(median(settled[-count:])) - start, kv_bytes=kv_bytes_per_token * len(moments),
    )  # fmt: skip


def _kv_bytes_per_token(rank: int) -> int:
    manifest = read_manifest(sliced(WORLD_SIZE) / f"node{rank}")
    return manifest.spec.kv_bytes(len(manifest.share.kv_heads(manifest.spec)), 1)


def _result(run: CommandRun, grown: Sequence[Growth]) -> Result:
    rows = [
        (one.name, f"{one.settled_bytes / 1e6:.1f}", f"{one.most_growth_bytes / 1e6:.2f}",
         f"{one.end_growth_bytes / 1e6:.2f}", f"{one.kv_bytes / 1e6:.1f}")
        for one in grown
    ]  # fmt: skip
    header = ("process", f"at token {SETTLED_TOKENS}, MB", "most growth", "growth at the end", "keys and values")
    most_bytes = max(one.most_growth_bytes for one in grown)
    return Result(
        name=f"Growth: {TOKENS} tokens of SmolLM2-135M on {WORLD_SIZE} nodes, window 2",
        tables=[Table(title="Resident memory without keys and values, MB", header=header, rows=rows)],
        bars=[Bar(
            name=f"growth of any process after {SETTLED_TOKENS} tokens", measured=most_bytes / 1e6,
            needed=MOST_GROWTH_BYTES / 1e6, at_least=False, unit=" MB",
        )],
        notes=[f"{run.seconds_per_token * 1000:.0f} ms a token"],
        numbers={"processes": [asdict(one) for one in grown]},
    )  # fmt: skip
