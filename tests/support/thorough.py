"""How much of what could be tried does a run of the tests try?

    @settings(max_examples=examples(200))
    for at in steps():                     # kill at the at-th change, until there are no more

Covers: the one switch, SHARDMESH_THOROUGH=1, which .ci/run sets: every example, every token on every plan, a kill at
every change; without it `make test` takes a fair part of each. Does not cover: which tests run, all of them either way.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

THOROUGH = os.environ.get("SHARDMESH_THOROUGH", "") not in {"", "0"}
FAIR_PART = 4
STRIDE = 3


def examples(count: int) -> int:
    """Return how many of `count` examples Hypothesis is to try in this run; others the next time."""
    return count if THOROUGH else -(-count // FAIR_PART)


def steps(first: int = 2, stride: int = STRIDE) -> Iterator[int]:
    """Yield at which of many like steps, from 1, to try without end: each, or the `first` and each third from there.

    Args: stride: another number than the third.
    """
    return itertools.count(1) if THOROUGH else itertools.count(first, stride)


def dealt_steps(turn: int, turns: int) -> Iterator[int]:
    """Yield steps without end: each, or those of one of several faults, which together are tried at each third one."""
    return steps(1 + STRIDE * turn, STRIDE * turns)
