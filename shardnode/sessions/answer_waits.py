"""How long did an answer take to make, and what did it wait for? Measured only where a coordinator asks.

Covers: one session's. Does not cover: waiting for weights and for other sessions (shardnode/work).
"""

from __future__ import annotations

import time
from typing import NamedTuple

from protos.shardmesh.v1 import shard_pb2
from shardnode.work.slice_at_work import ShardNode


class Waits(NamedTuple):
    """Nanoseconds; the names are those of BlockResult."""

    handling_nanoseconds: int
    core_wait_nanoseconds: int
    starved_nanoseconds: int


class AnswerWaits:
    """Not safe for several threads: the session's own asks."""

    def __init__(self, node: ShardNode) -> None:
        self._node = node
        self._handled_since = self._worked_before = 0
        self.is_first_answer = False
        """Of a sweep."""

    def begin(self) -> None:
        """Say that an answer that will be asked about begins."""
        self._handled_since, self._worked_before = time.perf_counter_ns(), time.thread_time_ns()

    def told(self, tile_wait_nanoseconds: int, queue_nanoseconds: int) -> Waits:
        """Return how long the answer took to make, and for how long this thread, or one that helped it, had no core.

        That is what is left of the time beside waits for weights and others, and this thread's own work: it works as
        long as its products do. With the first answer of a sweep, how long all threads have had no core.
        """
        starved = self._node.starved.nanoseconds() if self.is_first_answer else 0
        self.is_first_answer = False
        took = time.perf_counter_ns() - self._handled_since
        core_wait = 0
        if self._node.executor.computes_here:
            worked = time.thread_time_ns() - self._worked_before
            core_wait = max(0, took - tile_wait_nanoseconds - queue_nanoseconds - worked)
        return Waits(took, core_wait, starved)

    def tell(self, result: shard_pb2.BlockResult | shard_pb2.LayersResult) -> None:
        """Say it last, in an answer that says already what it waited for otherwise."""
        result.handling_nanoseconds, result.core_wait_nanoseconds, starved = self.told(
            result.tile_wait_nanoseconds, result.queue_nanoseconds
        )
        if starved:
            result.starved_nanoseconds = starved
