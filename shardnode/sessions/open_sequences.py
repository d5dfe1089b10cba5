"""The sequences of one session: opening, closing, refusing one without harm to the others, whose rows are whose.

Covers: distrust of segments. Does not cover: the room itself (shardnode/work/kv_cache.py), the order of messages
(session.py).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.errors import InputError, ProtocolError, ResourceError, ShapeError, ShardmeshError
from common.machine.operating_system import give_free_heap_back
from common.program.logs import entry
from common.program.request_id import is_request_id
from common.weights.stored_numbers import Floats
from common.wire.rpc import status_of
from protos.shardmesh.v1 import shard_pb2
from shardnode.sessions.session_series import SessionSeries
from shardnode.work.kv_cache import KvCache, Segment, Segments, SequenceKv

MAX_SEQUENCES = 1024
MAX_ROWS = 8192

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TakenSegments:
    """What of a request is to be computed."""

    segments: Segments
    """Of sequences that are not refused; none where all are."""
    row_count: int
    """Of the request, rows of refused sequences included."""
    kept: npt.NDArray[np.intp] | None
    """Which of these rows are theirs; None: all."""

    def own(self, rows: Floats) -> Floats:
        """Return the rows to compute. Args: rows: the request's, float32 [row_count, hidden_size]."""
        return rows if self.kept is None else rows[self.kept]

    def among_all(self, computed: Floats) -> Floats:
        """Return computed rows at their places among the request's; those of refused sequences are 0."""
        if self.kept is None:
            return computed
        rows = np.zeros((self.row_count, computed.shape[1]), np.float32)
        rows[self.kept] = computed
        return rows


class OpenSequences:
    """Close it, and all of them are."""

    def __init__(self, cache: KvCache, series: SessionSeries) -> None:
        self._cache, self._series = cache, series
        self._open: dict[int, SequenceKv] = {}
        self._requests: dict[int, str] = {}
        self.refusal: ShardmeshError | None = None
        """Why none is opened any more."""

    def __len__(self) -> int:
        return len(self._open)

    @property
    def requests(self) -> str | None:
        """What the open sequences' requests are called, for an entry of the log; None: there is none open."""
        return ",".join(self._requests[one] for one in self._open) if self._open else None

    def change(self, changes: shard_pb2.SequenceChanges) -> list[shard_pb2.SequenceRefused]:
        """Close and open sequences; return those that cannot be opened, and why.

        Raises: ProtocolError: one is open already.
        """
        for sequence_id in changes.closed:
            self._close(sequence_id)
        if changes.closed and not self._open and not changes.opened:
            give_free_heap_back()
        refused = []
        for opening in changes.opened:
            if opening.sequence_id in self._open:
                raise ProtocolError(f"sequence {opening.sequence_id} is open already")
            # What a coordinator calls it is a stranger's word; one of an earlier build calls it nothing.
            request = opening.request_id if is_request_id(opening.request_id) else f"sequence-{opening.sequence_id}"
            try:
                self._open[opening.sequence_id] = self._room(opening.position_capacity)
                self._requests[opening.sequence_id] = request
                log.debug("%s", entry("sequence opened", request=request, positions=opening.position_capacity))
            except ShardmeshError as error:
                self._series.failures.labels(reason=error.reason).inc()
                log.warning("%s", entry("sequence refused", request=request, reason=error.reason, error=error))
                status = status_of(error)
                refused.append(shard_pb2.SequenceRefused(
                    sequence_id=opening.sequence_id,
                    failure=shard_pb2.Failure(status=status.code, reason=status.reason, message=status.message),
                ))  # fmt: skip
        return refused

    def take(self, asked: Iterable[shard_pb2.Segment], refused: Collection[int]) -> TakenSegments:
        """Return which rows of a request to compute. Args: refused: ids of sequences whose rows are not.

        Raises: ProtocolError: an unknown sequence; InputError: positions that cannot be; ShapeError: too many rows.
        """
        segments, kept, row_count = Segments(), [np.empty(0, np.intp)], 0
        for segment in asked:
            if segment.sequence_id not in refused:
                segments.append(self._segment(segment))
            _check(segment)
            first_row, row_count = row_count, row_count + segment.row_count
            if row_count > MAX_ROWS:
                raise ShapeError(f"a round of {row_count} rows or more; from 1 to {MAX_ROWS} are possible")
            if refused and segment.sequence_id not in refused:
                kept.append(np.arange(first_row, row_count))
        return TakenSegments(segments=segments, row_count=row_count, kept=np.concatenate(kept) if refused else None)

    def close(self) -> None:
        """Give all room back."""
        had_some = bool(self._open)
        for sequence_id in list(self._open):
            self._close(sequence_id)
        if had_some:
            give_free_heap_back()

    def _room(self, position_capacity: int) -> SequenceKv:
        if self.refusal is not None:
            raise self.refusal
        if len(self._open) >= MAX_SEQUENCES:
            raise ResourceError(f"more than {MAX_SEQUENCES} sequences in one session")
        return self._cache.open(position_capacity)

    def _close(self, sequence_id: int) -> None:
        sequence, request = self._open.pop(sequence_id, None), self._requests.pop(sequence_id, None)
        if sequence is not None:
            self._cache.close(sequence)
            log.debug("%s", entry("sequence closed", request=request))

    def _segment(self, segment: shard_pb2.Segment) -> Segment:
        sequence = self._open.get(segment.sequence_id)
        if sequence is None:
            raise ProtocolError(f"sequence {segment.sequence_id} is not open")
        return Segment(
            sequence=sequence, first_position=segment.first_position,
            row_count=segment.row_count, rotary_length=segment.rotary_length,
        )  # fmt: skip


def _check(segment: shard_pb2.Segment) -> None:
    if segment.row_count < 1 or segment.first_position < 0 or segment.rotary_length < 0:
        raise InputError(f"sequence {segment.sequence_id} has {segment.row_count} rows at {segment.first_position}")
