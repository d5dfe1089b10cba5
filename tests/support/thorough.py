"""How much of what could be tried does a run of the tests try?

    @settings(max_examples=examples(200))

Covers: the one switch, SHARDMESH_THOROUGH=1, which .ci/run sets: every example, and every token on every plan; without
it `make test` takes a fair part of each. Does not cover: which tests run: all of them, either way.
"""

from __future__ import annotations

import os

THOROUGH = os.environ.get("SHARDMESH_THOROUGH", "") not in {"", "0"}
FAIR_PART = 4


def examples(count: int) -> int:
    """Return how many of `count` examples Hypothesis is to try in this run; others the next time."""
    return count if THOROUGH else -(-count // FAIR_PART)
