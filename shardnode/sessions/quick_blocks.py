"""The blocks of a sweep that come one after another, as nearly all do: same rows, same place in memory, next block.

    quick.tell(sweep_id, taken)                     # after the first of them, of which everything was checked
    if quick.is_told: ...                           # C may answer what follows: quick.served
    quick.learn(message, sweep_id, taken, rows)     # for those that it cannot
    if quick.begins(message):                       # the next one lies in the same memory and is like it
        head, part = quick.answer()                 # see Session.failed

Covers: few rows in float32, of which none are refused; what may differ from one message to the next is checked each
time. Does not cover: all else, which goes the whole way (session.py), as the first one does.

Why: what is checked once a sweep is not checked sixty times, while everybody waits.
"""

from __future__ import annotations

import ctypes
import time

import numpy as np

from common.compute.backend import ACTIVATIONS, FLOAT32
from common.compute.matmul import FEW_ROWS, few_rows_thread_count
from common.native.served import ServedSession, SessionCounts
from common.weights.slice_format import FFN
from common.weights.stored_numbers import Floats
from common.wire.packed_round import done_bytes, next_block
from shardnode.sessions.open_sequences import TakenSegments
from shardnode.work.kv_cache import Segments
from shardnode.work.slice_at_work import ShardNode


class QuickBlocks:
    """Those of one session. Not safe for several threads."""

    def __init__(self, node: ShardNode, counts: SessionCounts) -> None:
        self._node, self._counts = node, counts
        self._layer_count = node.manifest.spec.layer_count
        self._message: memoryview | None = None
        self._sweep_id = -1
        self._segments: Segments = Segments()
        self._rows: Floats = np.empty((0, 0), np.float32)
        self._kind, self._layer = "", 0
        self.served = ServedSession(work=ctypes.pointer(node.work), counts=ctypes.pointer(counts))
        """What C is told, which answers most of them (common/native/serving.c)."""
        if node.executor.ready is not None:
            self.served.ready = ctypes.pointer(node.executor.ready)
        self.activations = FLOAT32
        """The session's."""
        self.is_told = False
        """Whether C knows whose rows the blocks are of."""

    @property
    def call_id(self) -> int:
        """Of the session's last call, however it came."""
        return int(self.served.last_call_id)

    @call_id.setter
    def call_id(self, call_id: int) -> None:
        self.served.last_call_id = call_id

    def learn(self, message: bytes | memoryview, sweep_id: int, taken: TakenSegments, rows: Floats) -> None:
        """Take what a packed message was found to be, if the next ones may be answered here.

        Args: rows: its rows, which lie in it where it is memory that may be written.
        """
        if not isinstance(message, memoryview) or message.readonly or not np.may_share_memory(message, rows):
            return
        if taken.kept is None and taken.segments and taken.row_count <= FEW_ROWS:
            self._message, self._sweep_id = message, sweep_id
            self._segments, self._rows = taken.segments, rows

    def forget(self) -> None:
        """Answer nothing more until something is learned anew."""
        self._message, self.is_told = None, False

    def tell(self, sweep_id: int, taken: TakenSegments) -> None:
        """Tell C whose rows the blocks of a sweep are of, if kernels know their sequences; to be called after one."""
        served, described = self.served, taken.segments.described
        is_like_them = taken.kept is None and taken.row_count <= FEW_ROWS
        self.is_told = is_like_them and described is not None and bool(served.ready)
        if self.is_told:
            served.sequences, served.sequence_count = ctypes.addressof(described[0]), len(taken.segments)
            served.row_count, served.thread_count = taken.row_count, few_rows_thread_count()
            served.sweep_id, served.activations = sweep_id, ACTIVATIONS.index(self.activations)

    @property
    def is_last(self) -> bool:
        """Whether the block that was found is its sweep's last one, after which the coordinator has the cores."""
        return self._layer == self._layer_count - 1 and self._kind == FFN

    def begins(self, message: bytes | memoryview) -> bool:
        """Tell whether a message is the next block of these, for `answer`; its call is the session's last one then."""
        if message is not self._message or self._node.is_closed:
            return False
        found = next_block(message, self._sweep_id)
        if found is None:
            return False
        kind, layer, call_id = found
        if call_id <= self.call_id or layer >= self._layer_count:
            return False
        self._kind, self._layer, self.call_id = kind, layer, call_id
        return True

    def answer(self) -> tuple[bytes, Floats]:
        """Compute the block that was found; return the answer's beginning and the part that follows, without gaps.

        Raises: as Session.handle.
        """
        node = self._node
        self._counts.rounds += 1
        queued = 0 if node.lock.acquire(False) else node.wait_for_turn()
        try:
            node.executor.activations = self.activations
            output = node.executor.run(self._kind, self._layer, self._segments, self._rows)
            node.count(self._kind, output.compute_nanoseconds, output.tile_wait_nanoseconds)
        finally:
            node.lock.release()
        computed, tile_waited = output.compute_nanoseconds, output.tile_wait_nanoseconds
        head = done_bytes(self.call_id, time.perf_counter_ns(), computed, tile_waited, 0, queued, 0, 0)
        return head, np.ascontiguousarray(output.partial)
