"""Shares a node's memory budget out: what the program takes, keys and values, the rest for weights. Pure.

Covers: the arithmetic that a node applies, and that predictions are made with. Does not cover: refusing what is
too small (shardnode/work/node_memory.py), which tiles stay (weights/pinning.py).
"""

from __future__ import annotations

from dataclasses import dataclass

WORKING_BYTES = 64_000_000
"""What serving takes beside weights, keys and values: listeners, thread stacks, and rows of prompt chunks, which are
at most 4 MiB of input each (common/model/sweep_size.py) in several copies."""
DEFAULT_KV_BUDGET_BYTES = 1 << 30
KV_SHARE = 4
"""Of a budget keys and values get one part in so many, unless it is said otherwise."""


@dataclass(frozen=True, kw_only=True)
class NodeBudget:
    """Bytes of each part."""

    programs_bytes: int
    """Of interpreter, libraries and serving."""
    kv_bytes: int
    weight_bytes: int
    """Negative where nothing is left."""


def share_budget(budget_bytes: int, *, program_bytes: int, kv_bytes: int | None = None) -> NodeBudget:
    """Return who gets what.

    Args: program_bytes: what the process takes before it serves; kv_bytes: for keys and values, if it was said.
    """
    programs_bytes = program_bytes + WORKING_BYTES
    if kv_bytes is None:
        kv_bytes = max(1, min(DEFAULT_KV_BUDGET_BYTES, budget_bytes // KV_SHARE))
    return NodeBudget(
        programs_bytes=programs_bytes, kv_bytes=kv_bytes, weight_bytes=budget_bytes - programs_bytes - kv_bytes
    )  # fmt: skip
