"""Rounds on one host without gRPC: the same messages in frames over a Unix socket.

Covers: accepting, one session per connection. Does not cover: the session (framed_session.py), finding the socket
(GetStats tells its path), other devices (frames.py). The socket lies in a directory that only its owner may enter.
Threads: one that accepts; those of each session.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading

from common.errors import AddressInUse, InputError
from common.wire.framing import give_room
from shardnode.listeners.framed_session import FramedSession
from shardnode.sessions.session_series import SessionSeries
from shardnode.work.slice_at_work import ShardNode

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
        try:
            FramedSession(self._node, connection, self._series, passes_files=True).serve()
        finally:
            connection.close()
            with self._lock:
                self._connections.pop(threading.current_thread(), None)


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
