"""Tries hostile inputs on everything that reads what others made: `make fuzz`, or as follows.

    python -m tests.fuzz --count 5000 --seed 3 --jobs 2

Ends with 1 if any input did more than fail in a sentence; such inputs are kept, and `--only INDEX` tries one again.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.fuzz.runs import Stretch, run

KEPT = Path("models/fuzz-found")
PART = 2500
"""Inputs between two lines of progress."""


def main() -> int:
    """Run; return the exit code."""
    reader = argparse.ArgumentParser(description="Try hostile inputs on everything that reads what others made.")
    reader.add_argument("--count", type=int, default=100_000)
    reader.add_argument("--seed", type=int, default=1)
    reader.add_argument("--jobs", type=int, default=2)
    reader.add_argument("--only", type=int, help="the one input of this number")
    asked = reader.parse_args()
    if asked.only is not None:
        parts = [Stretch(seed=asked.seed, start=asked.only, stop=asked.only + 1, step=1)]
    else:
        most = max(PART, asked.count // 20)
        parts = [
            Stretch(seed=asked.seed, start=start, stop=min(start + most, asked.count), step=1)
            for start in range(0, asked.count, most)
        ]
    began, tried, found = time.monotonic(), 0, []
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as pool:
        for count, wrong in pool.map(run, parts, [KEPT] * len(parts)):
            tried += count
            found += wrong
            print(f"fuzz: {tried} inputs, {len(found)} wrong, {time.monotonic() - began:.0f} s", flush=True)
            for one in wrong:
                print(f"  {one.index} {one.reader}: {one.what}", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
