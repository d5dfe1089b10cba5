"""How much room for keys and values is taken on each rank: the one book that admission asks. Pure.

Covers: reserving a sequence whole on every rank, giving it back. Does not cover: the memory itself, which each node
reserves for itself (shardnode/work/kv_cache.py) and may refuse all the same: others may use the node too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import KvBudgetExceeded, ProtocolError
from common.wording import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class RankRoom:
    """What one rank has."""

    name: str
    """The node, as a person knows it."""
    position_bytes: int
    """Bytes of keys and values of one position, in all layers; 0 on a rank without heads."""
    budget_bytes: int
    """Most bytes of all sequences together."""


class KvLedger:
    """Who holds how many positions."""

    def __init__(self, ranks: Sequence[RankRoom]) -> None:
        self._ranks = tuple(ranks)
        self._positions: dict[int, int] = {}
        self._reserved_positions = 0

    @property
    def reserved_positions(self) -> int:
        """Return the positions of all sequences, which every rank has reserved."""
        return self._reserved_positions

    @property
    def usage_ratio(self) -> float:
        """Return how much of its room is reserved on the fullest rank, from 0 to 1. From any thread."""
        reserved = self._reserved_positions
        return max((reserved * rank.position_bytes / rank.budget_bytes for rank in self._ranks if rank.budget_bytes),
                   default=0.0)  # fmt: skip

    def check_possible(self, positions: int) -> None:
        """Raise KvBudgetExceeded, the rank named, if so many positions would not fit an empty mesh."""
        for rank in self._ranks:
            wanted_bytes = positions * rank.position_bytes
            if wanted_bytes > rank.budget_bytes:
                what = counted(positions, "position needs", "positions need")
                raise KvBudgetExceeded(
                    f"{rank.name}: {what} {wanted_bytes} bytes of keys and values and it has "
                    f"{rank.budget_bytes}: ask for a shorter answer (--length) or raise --kv-budget-bytes"
                )

    def reserve(self, sequence_id: int, positions: int) -> bool:
        """Take room on every rank; tell False, and take none, where one lacks it now."""
        if sequence_id in self._positions:
            raise ProtocolError(f"sequence {sequence_id} has its room already")
        after = self.reserved_positions + positions
        if any(after * rank.position_bytes > rank.budget_bytes for rank in self._ranks):
            return False
        self._positions[sequence_id] = positions
        self._reserved_positions = after
        return True

    def holds(self, sequence_id: int) -> bool:
        """Tell whether a sequence has its room."""
        return sequence_id in self._positions

    def release(self, sequence_id: int) -> None:
        """Give a sequence's room back; nothing for one that has none."""
        self._reserved_positions -= self._positions.pop(sequence_id, 0)
