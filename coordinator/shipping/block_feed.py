"""Source tensors of a model's blocks, each read once for all ranks that keep step with each other.

Covers: how far one rank may be ahead, what is kept in memory meanwhile. Does not cover: making tiles
(slicing/tiles.py), sending them (slice_sender.py).
Threads: one a rank. What is read is a block's one tensor that is cut by column; at most LEAD + 1 of them are kept.
"""

from __future__ import annotations

import threading

from common.weights.model_encodings import ModelEncodings
from common.weights.slice_format import BLOCK_KINDS
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.slicing.tiles import BlockTiles

LEAD = 1
"""Blocks that a rank may be ahead of the slowest one that is at work."""


class FeedClosed(Exception):
    """Nobody gets any more, since the whole shipment ends. Never seen outside of it."""


class BlockFeed:
    """Hands out blocks."""

    def __init__(self, checkpoint: Checkpoint, encodings: ModelEncodings | None = None) -> None:
        """Args: encodings: of slices whose matrices have encodings of their own."""
        self._checkpoint, self._encodings = checkpoint, encodings
        self._changed = threading.Condition()
        self._positions: dict[int, int] = {}
        """By rank at work: the block it is at."""
        self._blocks: dict[int, BlockTiles] = {}
        self._is_closed = False

    def take(self, rank: int, layer: int, kind: str) -> BlockTiles:
        """Return a block's tiles for a rank, which is at work from now on; waits for ranks that are behind.

        Raises: FeedClosed; CheckpointError: the source cannot be read.
        """
        self.is_ready(rank, layer, kind)
        position = _position(layer, kind)
        with self._changed:
            if self._is_closed:
                raise FeedClosed("the shipment has ended")
            for passed in [kept for kept in self._blocks if kept < min(self._positions.values())]:
                del self._blocks[passed]
            if position not in self._blocks:
                self._blocks[position] = BlockTiles(self._checkpoint, layer, kind, self._encodings)
            return self._blocks[position]

    def is_ready(self, rank: int, layer: int, kind: str, limit_seconds: float | None = None) -> bool:
        """Wait for ranks that are behind, and tell whether `take` would wait no more. Args: limit_seconds: of that."""
        position = _position(layer, kind)
        with self._changed:
            self._positions[rank] = position
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: self._is_closed or position <= min(self._positions.values()) + LEAD, limit_seconds
            )

    def leave(self, rank: int) -> None:
        """Let nobody wait for a rank: it has all it needs, or its node cannot be reached for now."""
        with self._changed:
            self._positions.pop(rank, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait at all."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def _position(layer: int, kind: str) -> int:
    return layer * len(BLOCK_KINDS) + BLOCK_KINDS.index(kind)
