"""A TCP relay between a client and a server that counts bytes and cuts the link where a test wants it.

    with CuttingRelay(server_address) as relay:
        relay.cut_after(5_000_000)          # both ways, once so many bytes have gone to the server
        connect(relay.address) ...
        relay.mend()

Covers: bytes to the server, cutting, refusing until mended. Does not cover: delay and rate (network_hosts.py).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType

from common.wire.addresses import split_host_port
from tests.support.waiting import wait_until

PIECE_BYTES, LIMIT_SECONDS = 65536, 60.0


class CuttingRelay:
    """Relays every connection to one server."""

    def __init__(self, server: str) -> None:
        self._server = split_host_port(server)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent_bytes = 0
        """To the server, so far."""
        self._limit: int | None = None
        self._once: Callable[[], bool] = lambda: True
        self.is_cut = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def cut_after(self, sent_bytes: int, once: Callable[[], bool] = lambda: True) -> None:
        """Cut the link once so many more bytes have gone to the server. Args: once: what is waited for before."""
        self._limit, self._once = self.sent_bytes + sent_bytes, once

    def mend(self) -> None:
        """Let connections through again."""
        self._limit = None
        self.is_cut.clear()

    def __enter__(self) -> CuttingRelay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_connections()
        for thread in self._threads:
            thread.join()

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type] # any callable
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            if self.is_cut.is_set():
                client.close()
                continue
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            self._start(self._carry, client, server, True)
            self._start(self._carry, server, client, False)

    def _carry(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                if counts:
                    self.sent_bytes += len(data)
                    if self._limit is not None and self.sent_bytes >= self._limit:
                        wait_until(self._once, limit_seconds=LIMIT_SECONDS, what="the link may be cut")
                        self.is_cut.set()
                        self._end_connections()
                        return
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _end_connections(self) -> None:
        with self._lock:
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._sockets.clear()
