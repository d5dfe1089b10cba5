"""Shares one memory budget out among the processes of this machine: what is fixed, then keys and values, then weights.

Covers: arithmetic over slices, and the refusal that names the least that would do. Does not cover: measuring
processes (common/machine/operating_system.py), which tiles stay (common/weights/pinning.py).

    budget = interpreters and libraries (measured, shared pages once) + one small part for each node
           + rows on their way + keys and values of the request + weights of every rank and of the head

Weights get what is left, in proportion to what each slice has, so that no rank streams more than another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import BudgetTooSmall
from common.program.sizes import format_size
from common.weights.manifest import SliceManifest
from common.weights.pinning import least_weight_bytes
from common.wording import counted

WORK_BYTES = 20_000_000
"""Pages that are touched only once work begins, in all processes together: of libraries, of the coordinator's own
objects, of what a product of many rows is laid out in. Measured with NODE_BYTES on SmolLM2, prompts of 3 and of 400
words: 7 to 23 MB on one node, 20 to 26 on two, 34 to 45 on four; the sum is held against the budget by
tests/e2e/test_memory_budget.py and the bench."""
NODE_BYTES = 9_000_000
"""What a forked node has of its own beside weights, keys and values: pages of Python objects that it touches, gRPC,
thread stacks."""
VARIATION = 20
"""The programs take a part in so many more or less from one start to the next, most of it because other programs share
pages of their libraries with them: what a refusal names works then too."""
ROW_COPIES = 8
"""A row of a sweep exists in so many places of a process at once: message, or memory that others see too
(ranks/round_memory.py: one input in all, one partial sum a rank), tensor, block's intermediate results."""


@dataclass(frozen=True, kw_only=True)
class MemoryShares:
    """What each part may take, in bytes."""

    kv_bytes: tuple[int, ...]
    """Per rank."""
    weight_bytes: tuple[int, ...]
    """Per rank: window and resident tiles."""
    head_bytes: int


def share_memory(
    budget_bytes: int,
    *,
    measured_bytes: int,
    nodes: Sequence[SliceManifest],
    node_tile_bytes: Sequence[Sequence[int]],
    head_tile_bytes: Sequence[int],
    position_capacity: int,
    row_count: int,
) -> MemoryShares:
    """Share out `budget_bytes`.

    Args: measured_bytes: what the processes take now, with everything imported and no node forked;
    node_tile_bytes: per rank, the sizes of its tiles; row_count: rows of the largest sweep.
    Raises: BudgetTooSmall: names the least that would do.
    """
    hidden = nodes[0].spec.hidden_size
    kv_bytes = tuple(kv_bytes_of(manifest, position_capacity) for manifest in nodes)
    rows_bytes = (len(nodes) + 1) * ROW_COPIES * row_count * hidden * 4
    programs_bytes = measured_bytes + WORK_BYTES + len(nodes) * NODE_BYTES
    fixed_bytes = programs_bytes + rows_bytes + sum(kv_bytes)
    slices = [*node_tile_bytes, head_tile_bytes]
    least = [least_weight_bytes(sizes) for sizes in slices]
    if budget_bytes < fixed_bytes + sum(least):
        enough_bytes = fixed_bytes + sum(least) + measured_bytes // VARIATION
        raise BudgetTooSmall(
            f"--memory-budget {format_size(budget_bytes)} is too small: this model on "
            f"{counted(len(nodes), 'node')} of this machine needs at least {format_size(enough_bytes)} "
            f"({format_size(programs_bytes)} of it for programs, {format_size(sum(kv_bytes) + rows_bytes)} for this "
            f"conversation, {format_size(sum(least))} for weights)"
        )
    weights = _in_proportion(budget_bytes - fixed_bytes, least, [sum(sizes) for sizes in slices])
    return MemoryShares(kv_bytes=kv_bytes, weight_bytes=tuple(weights[:-1]), head_bytes=weights[-1])


def kv_bytes_of(manifest: SliceManifest, position_capacity: int) -> int:
    """Return what the keys and values of `position_capacity` positions take on a rank; at least one byte."""
    spec = manifest.spec
    return max(1, spec.kv_bytes(len(manifest.share.kv_heads(spec)), position_capacity))


def _in_proportion(room_bytes: int, least: Sequence[int], most: Sequence[int]) -> list[int]:
    """Return shares of `room_bytes` in proportion to `most`, each from its `least` to its `most`."""
    shares = list(least)
    left = room_bytes - sum(least)
    open_slices = [index for index in range(len(most)) if shares[index] < most[index]]
    while left > 0 and open_slices:
        total = sum(most[index] for index in open_slices)
        before = left
        for index in list(open_slices):
            extra = min(before * most[index] // total, most[index] - shares[index])
            shares[index] += extra
            left -= extra
            if shares[index] == most[index]:
                open_slices.remove(index)
        if left == before:
            break
    return shares
