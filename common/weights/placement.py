"""Decides where in the memory window each tile of the cycle goes; pure arithmetic, done once at start.

Covers: a fixed table of places, so that a tile comes back to one of at most two addresses and views can be cached.
Does not cover: when a read may start (window.py), reading (reader.py).

Tiles are used in a fixed cycle. The table lists one or two cycles in order, one `Place` for each tile, and repeats.
`runs[p]` says how many places from p on are disjoint: those may be in memory together while p is the next to be used.
The least window is the largest sum of two neighbours: then every run is at least 2, which is both progress and
"read one while using another". Why it is enough: place the cycle twice, tiles alternately at the window's start and at
its end; neighbours never touch. A ring gives longer runs where there is room for more than two, so the best is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.errors import InternalError, WindowTooSmall

ALIGNMENT_BYTES = 4096
"""Offsets, lengths and addresses are multiples of this: a page, and what direct I/O asks for."""

RING_CYCLES = 4
"""A ring closes (last tile to first) or not depending on where in the window the cycle begins: so many are tried."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Bytes [region_offset, region_end) of the window, in which one tile lies whenever its turn comes."""

    tile_index: int
    region_offset: int
    region_end: int

    @property
    def byte_count(self) -> int:
        return self.region_end - self.region_offset

    def overlaps(self, other: Place) -> bool:
        return self.region_offset < other.region_end and other.region_offset < self.region_end


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The table of places, in the order of use; after the last comes the first."""

    places: tuple[Place, ...]
    runs: tuple[int, ...]
    """Per place: how many places from it on, itself included, are pairwise disjoint."""
    region_bytes: int
    """Bytes to allocate; never more than the window."""
    keeps_everything: bool
    """The whole cycle fits: each tile is read once and stays."""


def least_window_bytes(tile_bytes: Sequence[int]) -> int:
    """Return the smallest window for this cycle: its largest two neighbours, the last tile and the first included."""
    if len(tile_bytes) <= 2:
        return sum(tile_bytes)
    return max(size + tile_bytes[index - 1] for index, size in enumerate(tile_bytes))


def plan_placement(tile_bytes: Sequence[int], window_bytes: int) -> Placement:
    """Choose a place for each tile of the cycle within `window_bytes`.

    Args: tile_bytes: sizes in the order of use, each a positive multiple of ALIGNMENT_BYTES.
    Raises: WindowTooSmall: names the least that would do. InternalError: a size is not a multiple.
    """
    if any(size <= 0 or size % ALIGNMENT_BYTES for size in tile_bytes):
        raise InternalError(f"tile sizes must be positive multiples of {ALIGNMENT_BYTES} bytes, not {list(tile_bytes)}")
    least_bytes = least_window_bytes(tile_bytes)
    if window_bytes < least_bytes:
        raise WindowTooSmall(f"a memory window of {window_bytes} bytes cannot hold two neighbouring tiles; "
                             f"allow at least {least_bytes} bytes (--window-bytes {least_bytes})")  # fmt: skip
    if sum(tile_bytes) <= window_bytes:
        offsets = [sum(tile_bytes[:index]) for index in range(len(tile_bytes))]
        return _placement(tile_bytes, offsets, keeps_everything=True)
    usable_bytes = window_bytes - window_bytes % ALIGNMENT_BYTES
    return max(_candidates(tile_bytes, usable_bytes), key=lambda found: sum(found.runs) / len(found.runs))


def _candidates(tile_bytes: Sequence[int], window_bytes: int) -> Iterator[Placement]:
    """Yield tables in which no two neighbours overlap: one or two cycles of a ring, and the two-ended one."""
    tile_count = len(tile_bytes)
    ring = _ring_offsets(list(tile_bytes) * RING_CYCLES, window_bytes)
    for cycle_count in (1, 2):
        for first_cycle in range(RING_CYCLES - cycle_count + 1):
            offsets = ring[first_cycle * tile_count : (first_cycle + cycle_count) * tile_count]
            candidate = _placement(tile_bytes, offsets)
            if min(candidate.runs) >= 2:  # else the last tile meets the first one
                yield candidate
    yield _placement(tile_bytes, _two_ended_offsets(list(tile_bytes) * 2, window_bytes))


def _ring_offsets(sizes: Sequence[int], window_bytes: int) -> list[int]:
    """Put each tile behind the one before it, or at 0 when the end is reached.

    A tile after which its follower would fit on neither side goes to the window's very end instead: so each tile is
    disjoint from the one before it.
    """
    offsets: list[int] = []
    end = 0
    for size, follower in zip(sizes, [*sizes[1:], sizes[0]], strict=True):
        if end + size > window_bytes:
            offset = 0
        elif follower > end and end + size + follower > window_bytes:
            offset = window_bytes - size
        else:
            offset = end
        offsets.append(offset)
        end = offset + size
    return offsets


def _two_ended_offsets(sizes: Sequence[int], window_bytes: int) -> list[int]:
    """Put tiles alternately at the start and at the end; for an even count no two neighbours collide."""
    return [window_bytes - size if position % 2 else 0 for position, size in enumerate(sizes)]


def _placement(tile_bytes: Sequence[int], offsets: Sequence[int], keeps_everything: bool = False) -> Placement:
    tile_count = len(tile_bytes)
    places = tuple(
        Place(
            tile_index=position % tile_count,
            region_offset=offset,
            region_end=offset + tile_bytes[position % tile_count],
        )
        for position, offset in enumerate(offsets)
    )
    return Placement(
        places=places,
        runs=(len(places),) * len(places) if keeps_everything else _disjoint_runs(places),
        region_bytes=max((place.region_end for place in places), default=0),
        keeps_everything=keeps_everything,
    )


def _disjoint_runs(places: Sequence[Place]) -> tuple[int, ...]:
    """Return per place how many places from it on, cyclically, are pairwise disjoint.

    The run of the next place is at most one shorter, so both of its ends only move forward.
    """
    count = len(places)
    runs: list[int] = []
    length = 1
    for position in range(count):
        length = max(length - 1, 1)
        while length < count:
            candidate = places[(position + length) % count]
            if any(candidate.overlaps(places[(position + step) % count]) for step in range(length)):
                break
            length += 1
        runs.append(length)
    return tuple(runs)
