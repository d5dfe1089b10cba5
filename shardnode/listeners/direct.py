"""Rounds on one host without gRPC: the same messages in frames over a Unix socket.

Covers: accepting, one session per connection, signs of life while a block is computed, failures in-band.
Does not cover: what a session does (sessions/session.py), finding the socket (GetStats tells its path).

Why: a message through gRPC in Python costs 0.2 ms of processor time, and a token takes hundreds of
them; over a plain socket it costs a tenth. The socket lies in a directory that only its owner may enter.
Threads: one that accepts; per connection one that computes, and one that says "still working" each
second while a block takes long, so that the coordinator can tell a slow node from a frozen one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import threading
import time

from google.protobuf.message import DecodeError

from common.errors import AddressInUse, InputError, ShardmeshError
from common.machine.operating_system import on_core
from common.program.logs import entry
from common.wire.framing import FrameReader, give_room, send_frame
from common.wire.rpc import MAX_MESSAGE_BYTES, status_of
from protos.shardmesh.v1 import shard_pb2
from shardnode.sessions.round_memory import FILE_COUNT
from shardnode.sessions.session import Session
from shardnode.sessions.session_series import SessionSeries
from shardnode.work.slice_at_work import ShardNode

log = logging.getLogger(__name__)

SIGN_OF_LIFE_SECONDS = 1.0
MAX_CONNECTIONS = 16


class DirectServer:
    """Listens on a Unix socket and runs a session for each connection."""

    def __init__(self, node: ShardNode, path: str, series: SessionSeries | None = None) -> None:
        """Args: series: the process's; some of its own where nobody looks.

        Raises: AddressInUse: the path is taken; InputError: it is too long or not writable.
        """
        self._node, self._series = node, series or SessionSeries()
        self.path = path
        self._listener = _listen(path)
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        self._accepting = threading.Thread(target=self._accept, name="direct-accept", daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """End all connections and their threads. May be called twice."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        with self._lock:
            running = dict(self._connections)
        for thread, connection in running.items():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with self._lock:
                if len(self._connections) >= MAX_CONNECTIONS:
                    connection.close()
                    continue
                thread = threading.Thread(target=self._serve, args=(connection,), name="direct", daemon=True)
                self._connections[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        give_room(connection)
        session = Session(self._node, self._series)
        reader = FrameReader(connection, MAX_MESSAGE_BYTES)
        signs = _SignsOfLife(connection)
        try:
            # Files come with the first message or not at all: the system closes what arrives later.
            frame, files = reader.receive_with_files(FILE_COUNT)
            session.take_files(files)
            while frame is not None:
                session.counts.received_bytes += len(frame)
                response, is_last = self._answer(session, signs, frame)
                session.counts.sent_bytes += len(response)
                signs.send(response)
                if is_last:
                    return
                session.settle()
                with on_core(self._node.config.home_core if session.last_round_is_long else None):
                    frame = reader.receive()
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
            connection.close()
            with self._lock:
                self._connections.pop(threading.current_thread(), None)

    def _answer(self, session: Session, signs: _SignsOfLife, frame: bytes) -> tuple[bytes, bool]:
        """Return the serialized response and whether it ends the session."""
        try:
            request = shard_pb2.RoundsRequest.FromString(frame)
        except DecodeError:
            return self._refusal(InputError("a message that cannot be read")), True
        signs.begin(request.call_id)
        try:
            response = session.handle(request)
            # The coordinator takes answers by rank; what it finds may have been there for long: this says since when.
            response.ready_nanoseconds = time.perf_counter_ns()
            return response.SerializeToString(), False
        except Exception as error:  # noqa: BLE001 - the edge of a session; status_of logs what is not ours
            return _failure(error), True
        finally:
            signs.end()

    def _refusal(self, error: ShardmeshError) -> bytes:
        """Return the failure that answers what never reached the session, which counts its own."""
        self._series.failures.labels(reason=error.reason).inc()
        return _failure(error)


class _SignsOfLife:
    """Sends an empty response each second while a request is worked on; owns the writing side of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._write_lock = threading.Lock()
        self._is_over = threading.Event()
        self._call_id = 0
        self._thread = threading.Thread(target=self._run, name="signs-of-life", daemon=True)
        self._thread.start()

    def begin(self, call_id: int) -> None:
        self._call_id = call_id

    def end(self) -> None:
        self._call_id = 0

    def send(self, message: bytes) -> None:
        with self._write_lock:
            send_frame(self._connection, message)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        seen = 0
        while not self._is_over.wait(SIGN_OF_LIFE_SECONDS):
            current = self._call_id
            if current and current == seen:  # the same request as a second ago
                with contextlib.suppress(OSError), self._write_lock:
                    if self._call_id == current:
                        send_frame(self._connection, shard_pb2.RoundsResponse(call_id=current).SerializeToString())
            seen = current


def _failure(error: Exception) -> bytes:
    status = status_of(error)
    failure = shard_pb2.Failure(status=status.code, reason=status.reason, message=status.message)
    return shard_pb2.RoundsResponse(failure=failure).SerializeToString()


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(MAX_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise InputError(f"cannot listen on {path}: {error}; choose another --listen path") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """Remove a socket that a killed node left behind; refuse one that somebody answers on."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise AddressInUse(f"{path} is not a socket; choose another --listen path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise AddressInUse(f"another process listens on {path}; choose another --listen path")
