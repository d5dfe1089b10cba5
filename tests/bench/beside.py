"""Is this build as fast as an older one? `python -m tests.bench.beside OLDER_CHECKOUT --nodes 2`; `--first-token`.

Each is stopped (SIGSTOP) while the other runs for 0.4 s, from their first moment on: what neighbours on a shared
machine take falls on both alike. One after another, the same two builds came out between 0.79 and 1.21 of each other;
this way between 0.96 and 1.01. A pair compares the medians of seconds per token of two such runs. Turns that began 7 s
after the start once gave 0.77 where it was 1: a build that starts at once makes its tokens while the other one starts.
With `--first-token` the runs of a pair come one after the other, now this first, now that, and what is compared is the
time to the first token after a prompt of 512: it is as long as a turn, so to be stopped in it would be measured too.
Covers: running, stopping, comparing. Does not cover: making the older checkout, with an environment (`make setup`) and
kernels of its own; it is driven by its command line only, and cuts its slices itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from common.wording import counted

TURN_SECONDS = 0.4
PROMPT = "Once upon a time"
_HERE = Path(__file__).resolve().parents[2]
_MODEL = "models/smollm2-135m-instruct"
PROMPT_TOKENS, MOST_OF_OLDER = 512, 1.05


@dataclass(frozen=True, kw_only=True)
class Run:
    """What each checkout is asked."""

    node_count: int
    prompt: str
    length: int
    arguments: tuple[str, ...]


def main() -> None:
    """Print one line a pair, then the median and the spread; for each number of nodes."""
    parser = argparse.ArgumentParser(description="Compare this checkout and an older one, by tokens per second.")
    parser.add_argument("older", type=Path, help="checkout with an environment and the demo model")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1], help="several: one after another")
    parser.add_argument("--length", type=int, default=200, help="tokens of each run; of those to the first token 1")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--first-token", action="store_true", help="compare the time to it, prompts of 512 tokens")
    parser.epilog = "Options that are not known here are generate's: --memory-window 0."
    options, arguments = parser.parse_known_args()
    prompt, length = (_long_prompt(), 1) if options.first_token else (PROMPT, options.length)
    for node_count in options.nodes:
        run = Run(node_count=node_count, prompt=prompt, length=length, arguments=tuple(arguments))
        _compare(options.older.resolve(), run, options.pairs, to_first_token=options.first_token)


def _compare(older: Path, run: Run, pair_count: int, *, to_first_token: bool) -> None:
    ratios, what = [], f"{counted(run.node_count, 'node')}, {'first token' if to_first_token else 'tokens'}"
    if to_first_token:  # slices are cut, and read once
        first_tokens([older, _HERE], run)
    for number in range(pair_count):
        order = [older, _HERE] if number % 2 == 0 else [_HERE, older]
        times = first_tokens(order, run) if to_first_token else measure_pair(order, run)
        ratios.append(times[_HERE] / times[older] if to_first_token else times[older] / times[_HERE])
        told = {
            name: f"{times[place]:.3f} s" if to_first_token else f"{1 / times[place]:.2f} tokens/s"
            for name, place in (("older", older), ("this", _HERE))
        }
        print(f"pair {number + 1}: older {told['older']}, this {told['this']}, ratio {ratios[-1]:.3f}", flush=True)
    meaning = f"this over older, at most {MOST_OF_OLDER} wanted" if to_first_token else "this over older"
    print(f"{what}: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f} ({meaning})")


def first_tokens(checkouts: list[Path], run: Run) -> dict[Path, float]:
    """Run each to its end, one after another. Returns: by checkout, seconds from the ask to the first token."""
    return {place: _finished(place, run)["timings"]["ttft_seconds"] for place in checkouts}


def _finished(place: Path, run: Run) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as output:
        return _document(place, _start(place, run, output), output)


def measure_pair(checkouts: list[Path], run: Run) -> dict[Path, float]:
    """Run both, turn by turn. Returns: by checkout, the median of seconds per token."""
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in checkouts]
        runs = [_start(place, run, output) for place, output in zip(checkouts, outputs, strict=True)]
        try:
            turn = 0
            while all(one.poll() is None for one in runs):
                _signal(runs[1 - turn], signal.SIGSTOP)
                _signal(runs[turn], signal.SIGCONT)
                time.sleep(TURN_SECONDS)
                turn = 1 - turn
        finally:
            for one in runs:
                _signal(one, signal.SIGCONT)
        return {
            place: statistics.median(_document(place, one, output)["timings"]["seconds_per_token"])
            for place, one, output in zip(checkouts, runs, outputs, strict=True)
        }


def _document(place: Path, run: subprocess.Popen[bytes], output: IO[str]) -> dict[str, Any]:
    if run.wait():
        raise SystemExit(f"generate failed in {place}")
    output.seek(0)
    document: dict[str, Any] = json.load(output)
    return document


def _long_prompt() -> str:
    from tests.bench.inputs import long_prompt  # its imports are a benchmark's, torch among them

    return long_prompt(_HERE / _MODEL, PROMPT_TOKENS)


def _start(place: Path, run: Run, output: IO[str]) -> subprocess.Popen[bytes]:
    command = [
        f"{place}/.venv/bin/coordinator-cli", "generate", "--model", str(place / _MODEL), "--world-size",
        str(run.node_count), "--save-dir", str(place / f"models/beside-{run.node_count}"), "--length",
        str(run.length), "--temperature", "0", "--prompt", run.prompt, "--ignore-eos", "--json", *run.arguments,
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=place, env=os.environ | {"PYTHONPATH": str(place)}, stdout=output)


def _signal(run: subprocess.Popen[bytes], number: signal.Signals) -> None:
    for _ in range(2):  # a child may have been forked while the first was under way
        for process in _processes(run.pid):
            with contextlib.suppress(OSError):  # it has ended
                os.kill(process, number)


def _processes(process: int) -> list[int]:
    """Return a process and all below it."""
    found = [process]
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found += _processes(int(child))
    return found


if __name__ == "__main__":
    main()
