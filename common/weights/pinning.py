"""Decides which tiles of a cycle stay in memory and how large the window for the others is; pure arithmetic.

Covers: sharing a budget between window and resident tiles, spreading the resident ones over the cycle.
Does not cover: places inside the window (placement.py), reading (tile_source.py), where a budget comes from.

A cyclic scan defeats every cache that keeps what was used last, so a fixed set of tiles is pinned, and spread evenly:
the disk then always has something to read while a resident tile is computed. Tiles and not whole blocks are pinned,
since that spreads finer: between two streamed tiles lies at most one run of resident ones of nearly equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import WindowTooSmall
from common.weights.placement import least_window_bytes


@dataclass(frozen=True, kw_only=True)
class WeightPlan:
    """What one slice's weights take: `window_bytes` for streaming, and the tiles that stay."""

    window_bytes: int
    """0 when nothing is streamed."""
    resident: frozenset[int]
    """Indices of the tiles that stay."""


def least_weight_bytes(tile_bytes: Sequence[int]) -> int:
    """Return the least memory with which this cycle can run: two neighbours, or all of it if that is less."""
    return min(sum(tile_bytes), least_window_bytes(tile_bytes))


def plan_weights(tile_bytes: Sequence[int], *, window_bytes: int, budget_bytes: int | None) -> WeightPlan:
    """Share `budget_bytes` out: first the window, then tiles that stay. Without a budget nothing but the window.

    Args: tile_bytes: sizes in the order of use. window_bytes: the window that is wanted, 0 to keep everything; it
    shrinks when the budget is smaller.
    Raises: WindowTooSmall: names the least that would do.
    """
    total_bytes = sum(tile_bytes)
    if window_bytes == 0 or (budget_bytes is not None and budget_bytes >= total_bytes):
        if budget_bytes is not None and budget_bytes < total_bytes:
            raise WindowTooSmall(f"all weights take {total_bytes} bytes and {budget_bytes} are allowed; allow more, or "
                                 "stream them (--memory-window 2)")  # fmt: skip
        return WeightPlan(window_bytes=0, resident=frozenset(range(len(tile_bytes))))
    if budget_bytes is None:
        return WeightPlan(window_bytes=window_bytes, resident=frozenset())
    least_bytes = least_weight_bytes(tile_bytes)
    if budget_bytes < least_bytes:
        raise WindowTooSmall(f"{budget_bytes} bytes for weights cannot hold two neighbouring tiles; "
                             f"at least {least_bytes} are needed")  # fmt: skip
    return _pin(tile_bytes, max(min(window_bytes, budget_bytes), least_bytes), budget_bytes)


def _pin(tile_bytes: Sequence[int], window_bytes: int, budget_bytes: int) -> WeightPlan:
    pinned = _spread(tile_bytes, budget_bytes - window_bytes)
    while True:
        resident = frozenset(pinned)
        # Two streamed tiles may have become neighbours that were none before.
        streamed = [size for index, size in enumerate(tile_bytes) if index not in resident]
        window = max(window_bytes, least_window_bytes(streamed))
        if sum(tile_bytes) - sum(streamed) + window <= budget_bytes or not pinned:
            return WeightPlan(window_bytes=min(window, sum(streamed)), resident=resident)
        pinned.pop()


def _spread(tile_bytes: Sequence[int], room_bytes: int) -> list[int]:
    """Return tiles of at most `room_bytes` together, at nearly equal distances in bytes; then what still fits."""
    total_bytes = sum(tile_bytes)
    pinned: list[int] = []
    taken_bytes = passed_bytes = 0
    for index, size in enumerate(tile_bytes):
        passed_bytes += size
        wanted_bytes = passed_bytes * room_bytes // total_bytes
        if taken_bytes + size <= min(room_bytes, wanted_bytes + size // 2):
            pinned.append(index)
            taken_bytes += size
    for index in sorted(set(range(len(tile_bytes))) - set(pinned)):
        if taken_bytes + tile_bytes[index] <= room_bytes:
            pinned.append(index)
            taken_bytes += tile_bytes[index]
    return pinned
