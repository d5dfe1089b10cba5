"""What a node's memory budget leaves for keys and values, and for weights. Refuses one that is too small.

Covers: `shardnode --memory-budget`. Does not cover: nodes that a coordinator starts on its own machine, which are told
what each part may take (coordinator/local/shares.py), which tiles stay (common/weights/pinning.py).
"""

from __future__ import annotations

from dataclasses import replace

from common.errors import BudgetTooSmall
from common.machine.node_budget import DEFAULT_KV_BUDGET_BYTES, KV_SHARE, WORKING_BYTES, share_budget
from common.machine.operating_system import own_rss_bytes
from common.program.memory_flags import parse_budget
from common.program.sizes import format_size
from common.weights.manifest import SliceManifest
from common.weights.pinning import least_weight_bytes
from common.weights.weight_memory import WeightMemory
from shardnode.config import NodeConfig


def told_budget(config: NodeConfig, program_bytes: int) -> int:
    """Return the most memory that a process was told, in bytes; 0 without a budget.

    Args: program_bytes: what it takes before it serves; `auto` adds what is free, of which serving takes its part.
    """
    if config.memory_budget is None:
        return 0
    return parse_budget(config.memory_budget, taken_bytes=program_bytes, coming_bytes=WORKING_BYTES)


def node_memory(config: NodeConfig, manifest: SliceManifest) -> tuple[int, WeightMemory]:
    """Return the budget of keys and values, and the memory for weights.

    Raises: BudgetTooSmall: names the least that would do.
    """
    if config.memory_budget is None:
        return config.kv_budget_bytes or DEFAULT_KV_BUDGET_BYTES, config.weights
    program_bytes = own_rss_bytes()
    budget_bytes = told_budget(config, program_bytes)
    budget = share_budget(budget_bytes, program_bytes=program_bytes, kv_bytes=config.kv_budget_bytes)
    programs_bytes = budget.programs_bytes
    least_bytes = least_weight_bytes(
        [tile.byte_count for layout in manifest.layouts().values() for tile in layout.tiles]
    )
    needed_bytes = (programs_bytes + least_bytes) * KV_SHARE // (KV_SHARE - 1)
    if config.kv_budget_bytes is not None:
        needed_bytes = programs_bytes + least_bytes + config.kv_budget_bytes
    if budget.weight_bytes < least_bytes:
        raise BudgetTooSmall(
            f"--memory-budget {format_size(budget_bytes)} is too small for {config.slice_directory}: at least "
            f"{format_size(needed_bytes)} are needed ({format_size(programs_bytes)} of it for the program, "
            f"{format_size(least_bytes)} for weights, the rest for keys and values)"
        )
    return budget.kv_bytes, replace(config.weights, budget_bytes=budget.weight_bytes)
