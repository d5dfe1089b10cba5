"""Is this build as fast as an older one? `python -m tests.bench.beside OLDER_CHECKOUT --nodes 2`.

Each is stopped (SIGSTOP) while the other runs for 0.4 s, from their first moment on: what neighbours on a shared machine
take falls on both alike. One after another, the same two builds came out between 0.79 and 1.21 of each other; this way
between 0.96 and 1.01. A pair compares the medians of seconds per token of two such runs. Turns that began 7 s after the
start once gave 0.77 where it was 1: a build that starts at once makes its tokens while the other one starts.
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
from pathlib import Path
from typing import IO

TURN_SECONDS = 0.4
PROMPT = "Once upon a time"
_HERE = Path(__file__).resolve().parents[2]
_MODEL = "models/smollm2-135m-instruct"


def main() -> None:
    """Print one line a pair, then the median and the spread."""
    parser = argparse.ArgumentParser(description="Compare tokens per second of this checkout and of an older one.")
    parser.add_argument("older", type=Path, help="checkout with an environment and the demo model")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--length", type=int, default=200, help="tokens of each run")
    parser.add_argument("--pairs", type=int, default=7)
    parser.epilog = "Options that are not known here are generate's: --memory-window 0."
    options, arguments = parser.parse_known_args()
    options.arguments = arguments
    ratios = []
    for number in range(options.pairs):
        order = [options.older.resolve(), _HERE]
        times = measure_pair(order if number % 2 == 0 else order[::-1], options)
        ratios.append(times[order[0]] / times[_HERE])
        speeds = "  ".join(
            f"{name} {1 / times[place]:.2f}" for name, place in zip(("older", "this"), order, strict=True)
        )
        print(f"pair {number + 1}: {speeds} tokens/s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


def measure_pair(checkouts: list[Path], options: argparse.Namespace) -> dict[Path, float]:
    """Run both, turn by turn. Returns: by checkout, the median of seconds per token."""
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in checkouts]
        runs = [_start(place, options, output) for place, output in zip(checkouts, outputs, strict=True)]
        try:
            turn = 0
            while all(run.poll() is None for run in runs):
                _signal(runs[1 - turn], signal.SIGSTOP)
                _signal(runs[turn], signal.SIGCONT)
                time.sleep(TURN_SECONDS)
                turn = 1 - turn
        finally:
            for run in runs:
                _signal(run, signal.SIGCONT)
        found = {}
        for place, run, output in zip(checkouts, runs, outputs, strict=True):
            if run.wait():
                raise SystemExit(f"generate failed in {place}")
            output.seek(0)
            found[place] = statistics.median(json.load(output)["timings"]["seconds_per_token"])
        return found


def _start(place: Path, options: argparse.Namespace, output: IO[str]) -> subprocess.Popen[bytes]:
    command = [
        f"{place}/.venv/bin/coordinator-cli", "generate", "--model", str(place / _MODEL), "--world-size",
        str(options.nodes), "--save-dir", str(place / f"models/beside-{options.nodes}"), "--length",
        str(options.length), "--temperature", "0", "--prompt", PROMPT, "--ignore-eos", "--json", *options.arguments,
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
