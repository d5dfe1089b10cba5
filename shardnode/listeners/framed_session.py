"""One session over one connection, in frames: messages in order, signs of life, failures in-band.

Covers: from the first message to the end of the connection. Does not cover: who may connect (direct.py, frames.py),
what a session does (sessions/session.py).

Why: a message through gRPC in Python costs 0.2 ms of processor time, and a token takes hundreds of them; over a plain
socket it costs a tenth.
Threads: the one that calls `serve` computes; one says "still working" each second while a block takes long, so that the
coordinator can tell a slow node from a frozen one.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from google.protobuf.message import DecodeError

from common.compute.tile_products import checked
from common.errors import InputError, ShardmeshError
from common.machine.operating_system import on_core
from common.native.library import Outcome
from common.native.lock import address_of, new_lock
from common.native.served import ServedSession
from common.program.logs import entry
from common.weights.stored_numbers import Floats
from common.wire.framing import FrameReader, Stream, send_frame
from common.wire.packed_round import is_packed, unpack_next
from common.wire.rpc import MAX_MESSAGE_BYTES, status_of
from protos.shardmesh.v1 import shard_pb2
from shardnode.listeners.answer_lane import MOST_NUMBER_BYTES, AnswerLane, lane_of
from shardnode.sessions.live_sessions import LiveSessions
from shardnode.sessions.round_memory import FILE_COUNT
from shardnode.sessions.session import Session
from shardnode.sessions.session_series import SessionSeries
from shardnode.work.slice_at_work import ShardNode

log = logging.getLogger(__name__)

SIGN_OF_LIFE_SECONDS = 1.0
NO_NUMBERS: Floats = np.empty(0, np.float32)


class FramedSession:
    """A session and its connection, whose owner closes it."""

    def __init__(
        self, node: ShardNode, connection: Stream, series: SessionSeries, live: LiveSessions | None = None,
        *, passes_files: bool = False, reader: FrameReader | None = None,
        opened: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Args: live: where a node that drains looks; None: nobody does; passes_files: over a Unix socket; reader: of
        this connection, if somebody has looked at its first message; opened: called once that has been answered well.
        """
        self._node, self._connection, self._series = node, connection, series
        self._live, self._passes_files, self._opened = live, passes_files, opened
        self.session = Session(node, series)
        if live is not None:
            self.session.quick.served.must_look = ctypes.pointer(live.must_look)
        self._reader = reader or FrameReader(connection, MAX_MESSAGE_BYTES)

    def serve(self) -> None:
        """Answer until the connection or the session ends. Raises: nothing that a peer can cause."""
        session, signs = self.session, _SignsOfLife(self._connection, self.session.quick.served)
        lane, counts = lane_of(self._connection, self._reader), session.counts
        try:
            first, files = self._first()
            frame: bytes | memoryview | None = first
            session.take_files(files)
            is_first = True
            while frame is not None:
                counts.received_bytes += len(frame)
                response, numbers, is_last = self._answer(signs, frame)
                counts.sent_bytes += len(response) + (0 if numbers is None else numbers.nbytes)
                is_done = is_last or (self._live is not None and self._live.is_done(session))
                can_wait = not (is_done or session.last_round_is_long)
                if numbers is None and session.quick.is_told and len(response) <= MOST_NUMBER_BYTES:
                    numbers = NO_NUMBERS  # C will have the next one
                if numbers is not None and lane is not None and can_wait and lane.takes(numbers):
                    with signs.writing:  # nothing is worked on until the next message is here, so nobody else writes
                        frame = lane.answer_and_wait(response, numbers)
                    with on_core(None if lane.sleeps_at_once else self._node.config.home_core):
                        frame = self._answer_alike(signs, lane, frame)
                    continue
                if is_first and not is_last:  # before the coordinator hears that it is in
                    self._opened()
                    is_first = False
                signs.send(response if numbers is None else response + numbers.tobytes())
                if is_done or (self._live is not None and self._live.is_done(session)):
                    return
                session.settle()
                with on_core(self._node.config.home_core if session.last_round_is_long else None):
                    frame = self._reader.receive()
        except ShardmeshError as error:  # no message at all: longer than any may be, or cut short
            with contextlib.suppress(OSError):
                signs.send(self._refusal(error))
        except OSError:
            log.info("%s", entry("a coordinator went away"))
        except Exception as error:  # the edge of a thread: log it, end the connection
            log.error("%s", entry("a direct session failed"), exc_info=error)
        finally:
            session.close()
            signs.close()

    def _answer_alike(
        self, signs: _SignsOfLife, lane: AnswerLane, frame: bytes | memoryview | None
    ) -> bytes | memoryview | None:  # fmt: skip
        """Answer blocks that are like the ones before them, as long as such come; return the message that is none.

        Everybody waits for this loop, twice a layer, so most of it is C's; for the rest too it calls little.
        """
        quick, counts, live = self.session.quick, self.session.counts, self._live
        while frame is not None and (live is None or live.is_usual):
            if quick.is_told:
                frame = self._answer_in_c(signs, lane, frame)
            if frame is None or not quick.begins(frame):
                return frame
            counts.received_bytes += len(frame)
            signs.call_id = quick.call_id
            try:
                head, numbers = quick.answer()
            except Exception as error:  # noqa: BLE001 - the edge of a session; status_of logs what is not ours
                signs.send(self._failed(error))
                return None
            finally:
                signs.call_id = 0
            counts.sent_bytes += len(head) + numbers.nbytes
            if not lane.takes(numbers):
                signs.send(head + numbers.tobytes())
                frame = self._reader.receive()
                continue
            with signs.writing:
                frame = lane.answer_and_wait(head, numbers, is_last=quick.is_last)
        return frame

    def _answer_in_c(
        self, signs: _SignsOfLife, lane: AnswerLane, frame: bytes | memoryview
    ) -> bytes | memoryview | None:  # fmt: skip
        """Answer as many as C can; return the message that it cannot, which may be this one. None: the session ends."""
        outcome = lane.answer_blocks(self.session.quick.served, frame)
        if outcome is None:
            return frame
        if outcome is Outcome.DONE:
            return lane.last
        if outcome is Outcome.NOT_SIMPLE:
            with signs.writing:
                return lane.go_on()
        try:
            checked(outcome)
        except ShardmeshError as error:
            signs.send(self._failed(error))
        return None

    def _failed(self, error: Exception) -> bytes:
        """Return what says how a block failed that was begun quickly."""
        try:
            self.session.failed(error)
        except ShardmeshError as better:
            error = better
        return failure_of(error)

    def _first(self) -> tuple[bytes | None, Sequence[int]]:
        """Return the first message. Files come with it or not at all: the system closes what arrives later."""
        if self._passes_files:
            return self._reader.receive_with_files(FILE_COUNT)
        return self._reader.receive(), ()

    def _answer(
        self, signs: _SignsOfLife, frame: bytes | memoryview
    ) -> tuple[bytes, Floats | None, bool]:  # fmt: skip
        """Return the serialized response, the float32 that follow it, if any, and whether it ends the session."""
        if self._live is not None and self._live.cut is not None:
            return self._refusal(self._live.cut), None, True
        try:
            if is_packed(frame):
                block = unpack_next(frame)
                signs.call_id = block.call_id
                return *self.session.answer_next(block, frame), False
            request = shard_pb2.RoundsRequest.FromString(bytes(frame))
            signs.call_id = request.call_id
            response = self.session.handle(request)
            # what the coordinator finds may have been there for long: this says since when.
            response.ready_nanoseconds = time.perf_counter_ns()
            return response.SerializeToString(), None, False
        except DecodeError:
            return self._refusal(InputError("a message that cannot be read")), None, True
        except Exception as error:  # noqa: BLE001 - the edge of a session; status_of logs what is not ours
            return failure_of(error), None, True
        finally:
            signs.call_id = 0

    def _refusal(self, error: ShardmeshError) -> bytes:
        """Return the failure that answers what never reached the session, which counts its own."""
        self._series.failures.labels(reason=error.reason).inc()
        return failure_of(error)


class _SignsOfLife:
    """Sends an empty response each second while a request is worked on; owns the writing side of a connection."""

    def __init__(self, connection: Stream, served: ServedSession) -> None:
        """Args: served: says what is worked on, which C does as well."""
        self._connection, self._served = connection, served
        self.writing = new_lock()
        """Held by whoever writes."""
        served.writing = address_of(self.writing)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signs-of-life", daemon=True)
        self._thread.start()

    @property
    def call_id(self) -> int:
        """Of the request that is worked on; 0: none is."""
        return int(self._served.working_on)

    @call_id.setter
    def call_id(self, call_id: int) -> None:
        self._served.working_on = call_id

    def send(self, message: bytes) -> None:
        with self.writing:
            send_frame(self._connection, message)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        seen = 0
        while not self._is_over.wait(SIGN_OF_LIFE_SECONDS):
            current = self.call_id
            if current and current == seen:  # the same request as a second ago
                with contextlib.suppress(OSError), self.writing:
                    if self.call_id == current:
                        send_frame(self._connection, shard_pb2.RoundsResponse(call_id=current).SerializeToString())
            seen = current


def failure_of(error: Exception) -> bytes:
    """Return the message that ends a session in words."""
    status = status_of(error)
    failure = shard_pb2.Failure(status=status.code, reason=status.reason, message=status.message)
    return shard_pb2.RoundsResponse(failure=failure).SerializeToString()
