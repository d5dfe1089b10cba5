"""What was every sweep of the next seconds made of? Told while it goes on, to whoever asks.

Covers: how long, how many may ask at once, sweeps as messages. Does not cover: writing them down
(ranks/trace_watch.py), files (cli/trace_file.py). Threads: gRPC's, one for each who asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from common.errors import InputError, ResourceError
from coordinator.ranks.trace_watch import TracedSweep, TraceWatch
from protos.shardmesh.v1 import observe_pb2

MOST_SECONDS = 600.0
MOST_LISTENERS = 4
TELL_SECONDS = 0.5
SWEEPS_A_MESSAGE = 20
"""Of 60 rounds of four nodes, half a megabyte."""


class Tracing:
    """Traces for several at once."""

    def __init__(self, watch: TraceWatch) -> None:
        self._watch = watch
        self._listeners = threading.Semaphore(MOST_LISTENERS)

    def check(self, seconds: float) -> None:
        """Raise InputError unless it can be traced for so long."""
        if not 0 < seconds <= MOST_SECONDS:
            raise InputError(f"a trace of {seconds:g} s; from above 0 to {MOST_SECONDS:g} are possible")

    def sweeps(self, seconds: float, is_wanted: Callable[[], bool]) -> Iterator[observe_pb2.TraceResponse]:
        """Yield the sweeps of the next seconds. Raises: ResourceError: too many ask already."""
        if not self._listeners.acquire(blocking=False):
            raise ResourceError(f"{MOST_LISTENERS} traces are being made already; ask again when one is over")
        try:
            yield from self._sweeps(seconds, is_wanted)
        finally:
            self._listeners.release()

    def _sweeps(self, seconds: float, is_wanted: Callable[[], bool]) -> Iterator[observe_pb2.TraceResponse]:
        began = time.perf_counter()
        pause = threading.Event()
        with self._watch.listen() as listening:
            while is_wanted() and (left := began + seconds - time.perf_counter()) > 0:
                pause.wait(min(left, TELL_SECONDS))
                taken = listening.take()
                for first in range(0, len(taken), SWEEPS_A_MESSAGE):
                    yield _response(taken[first : first + SWEEPS_A_MESSAGE], began, listening.dropped_count)
            rest = self._watch.under_way()
            last = [*listening.take(), *([] if rest is None else [rest])]
            yield _response(last, began, listening.dropped_count)


def _response(sweeps: list[TracedSweep], began: float, dropped_count: int) -> observe_pb2.TraceResponse:
    response = observe_pb2.TraceResponse(dropped_sweep_count=dropped_count)
    for sweep in sweeps:
        if (message := _message(sweep, began)) is not None:
            response.sweeps.append(message)
    return response


def _message(sweep: TracedSweep, began: float) -> observe_pb2.TracedSweep | None:
    """Return a sweep as a message; None for one that began before somebody asked: its first rounds are not known."""
    swept, rounds = sweep.swept, sweep.rounds
    started = swept.started if swept is not None else rounds[0].started
    if started < began:
        return None
    message = observe_pb2.TracedSweep(
        model=sweep.model, sweep_id=rounds[0].sweep_id if swept is None else swept.sweep_id,
        started_seconds=started - began,
    )  # fmt: skip
    if swept is not None:
        message.head_started_seconds, message.finished_seconds = swept.headed - began, swept.finished - began
        message.rows.extend(
            observe_pb2.TracedRows(request_id=one.request_id, row_count=one.row_count) for one in swept.rows
        )
    for record in rounds:
        traced = message.rounds.add(
            kind=record.kind, layer=record.layer, layer_count=record.layer_count, row_count=record.row_count,
            started_seconds=record.started - began, sent_seconds=record.sent - began,
            finished_seconds=record.finished - began,
        )  # fmt: skip
        for part in record.parts:
            traced.parts.add(
                node=sweep.names[part.rank], arrived_seconds=part.arrived - began,
                compute_nanoseconds=part.compute_nanoseconds, tile_wait_nanoseconds=part.tile_wait_nanoseconds,
                queue_nanoseconds=part.queue_nanoseconds, core_wait_nanoseconds=part.core_wait_nanoseconds,
                sent_bytes=part.sent_bytes, received_bytes=part.received_bytes,
            )  # fmt: skip
    return message
