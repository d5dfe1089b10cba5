"""How does a small page stay there for who may read it, whatever others do to its port?

Covers: a bounded number of connections and threads, one request each, a limit to its length and to its time.
Does not cover: what is answered (metrics_page.py), TLS and who may come in (common/trust/metrics_door.py).
Threads: one that accepts, one for each connection.

A connection has SECONDS from being accepted to being closed, handshake and answer included, so one that is idle or slow
holds its place no longer. Where all places are taken, whoever has the most connections loses the oldest of them that is
not yet let in: thousands of them from one host keep no other host away.
"""

from __future__ import annotations

import errno
import io
import logging
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Protocol

from common.program.logs import entry
from common.wording import plain

MOST_CONNECTIONS = 16
MOST_THREADS = 2 * MOST_CONNECTIONS
"""Those of connections that have just lost their place among them."""
SECONDS = 10.0
"""As long as a scrape may take by default."""
MOST_HEAD_BYTES = 8192
BACKLOG = 256
PAUSE_SECONDS = 0.1
CLOSE_SECONDS = 2.0
TELL_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a request is answered with."""

    status: int
    content: bytes
    content_type: str = "text/plain; charset=utf-8"
    encoding: str = ""
    challenge: str = ""
    """How a caller without rights could show some (WWW-Authenticate)."""


class Request(Protocol):
    """What is asked for."""

    path: str

    def header(self, name: str) -> str:
        """Return a header of the request; empty without it."""


class Door(Protocol):
    """Who may come in, and by which protocol; asked by several threads."""

    def wrapped(self, connection: socket.socket) -> socket.socket:
        """Return a connection as it is read from now on; nothing is sent or read yet. Raises: OSError."""

    def greet(self, connection: socket.socket) -> None:
        """Do the handshake of a wrapped connection.

        Raises: PermissionError: in words, why somebody is not believed; OSError: it has failed.
        """

    def refusal(self, connection: socket.socket, authorization: str) -> Reply | None:
        """Return what a caller is answered instead who may not read; None: he may."""


@dataclass(eq=False)
class _Caller:
    """One connection."""

    host: str
    deadline: float
    connection: socket.socket
    is_let_in: bool = False


class PageServer:
    """A server on one address. Raises on construction: OSError."""

    def __init__(self, host: str, port: int, reply: Callable[[Request], Reply], door: Door | None) -> None:
        """Args: reply: asked for each request that may be answered, by several threads; door: None: all may come."""
        self._reply, self._door = reply, door
        self._callers: set[_Caller] = set()
        self._thread_count = 0
        self._lock = threading.Condition()
        self._told_at = -TELL_SECONDS
        family, address = _family(host.strip("[]"), port)
        is_all = address[0] == "::" and socket.has_dualstack_ipv6()
        self._listener = socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=is_all)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._ending, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more and end all connections; who is being answered has CLOSE_SECONDS."""
        self._end.close()
        self._thread.join()
        with self._lock:
            self._cut([caller for caller in self._callers if not caller.is_let_in])
            self._lock.wait_for(lambda: not self._thread_count, CLOSE_SECONDS)
            self._cut(list(self._callers))
            self._lock.wait_for(lambda: not self._thread_count, CLOSE_SECONDS)

    def _accept(self) -> None:
        """Take callers, and cut those whose time is over; sleep while there are none."""
        with self._listener, self._ending, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ending, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(self._cut_late())]
                if self._ending in ready:
                    return
                if ready:
                    self._accept_one()

    def _accept_one(self) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError as error:  # he has gone already; or there is no descriptor left just now, and he waits
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(PAUSE_SECONDS)
            return
        self._take(connection, str(address[0]))

    def _cut_late(self) -> float | None:
        """Cut whose time is over, and return in how many seconds the next one's is; None: nobody is there."""
        with self._lock:
            now = time.monotonic()
            self._cut([caller for caller in self._callers if caller.deadline <= now])
            return min((caller.deadline - now for caller in self._callers), default=None)

    def _take(self, connection: socket.socket, host: str) -> None:
        """Give a connection a place and a thread, or close it."""
        connection.settimeout(SECONDS)
        caller = _Caller(host=host, deadline=time.monotonic() + SECONDS, connection=connection)
        with self._lock:
            if len(self._callers) >= MOST_CONNECTIONS:
                self._make_room()
            if len(self._callers) >= MOST_CONNECTIONS or self._thread_count >= MOST_THREADS:
                connection.close()
                return
            self._callers.add(caller)
            self._thread_count += 1
        threading.Thread(target=self._serve, args=(caller,), name="metrics caller", daemon=True).start()

    def _make_room(self) -> None:
        """Cut the oldest connection that is not let in, of the host that has the most of these."""
        waiting = [caller for caller in self._callers if not caller.is_let_in]
        counts = Counter(caller.host for caller in waiting)
        if waiting:
            self._cut([min(waiting, key=lambda caller: (-counts[caller.host], caller.deadline))])

    def _cut(self, callers: list[_Caller]) -> None:
        """Take their places from some; their threads end, since nothing comes or goes any more."""
        for caller in callers:
            self._callers.discard(caller)
            with suppress(OSError):  # of a TLS connection too: this is the socket's own, and known to the kernel alone
                socket.socket.shutdown(caller.connection, socket.SHUT_RDWR)

    def _serve(self, caller: _Caller) -> None:
        try:
            self._answer(caller)
        except PermissionError as error:
            self._tell(caller, str(error))
        except OSError:  # who breaks off, is too slow, or speaks no TLS, has no answer
            pass
        except Exception:  # the thread's edge: a page that cannot be made is no reason to end
            log.exception("%s", entry("metrics page failed", caller=caller.host))
        finally:
            with suppress(OSError):
                caller.connection.close()
            with self._lock:
                self._callers.discard(caller)
                self._thread_count -= 1
                self._lock.notify_all()

    def _answer(self, caller: _Caller) -> None:
        if self._door is not None:
            with self._lock:  # who cuts a connection has to find it, during the handshake above all
                if caller not in self._callers:
                    return
                caller.connection = self._door.wrapped(caller.connection)
            self._door.greet(caller.connection)
        _Handler(caller.connection, self._let_in(caller), self._reply)

    def _let_in(self, caller: _Caller) -> Callable[[str], Reply | None]:
        """Return what tells, by a request's authorization, what its caller is answered instead; None: he may read."""

        def refusal(authorization: str) -> Reply | None:
            refused = None if self._door is None else self._door.refusal(caller.connection, authorization)
            if refused is None:
                caller.is_let_in = True
            else:
                self._tell(caller, refused.content.decode().strip())
            return refused

        return refusal

    def _tell(self, caller: _Caller, why: str) -> None:
        """Log why somebody is refused, not each time that he asks again."""
        if (now := time.monotonic()) - self._told_at >= TELL_SECONDS:
            self._told_at = now
            log.warning("%s", entry("metrics refused", caller=caller.host, error=why))


class _Handler(BaseHTTPRequestHandler):
    """One request of a connection, and its answer."""

    server_version, sys_version = "shardmesh", ""

    def __init__(
        self, connection: socket.socket, refusal: Callable[[str], Reply | None], reply: Callable[[Request], Reply]
    ) -> None:  # fmt: skip
        """Read, answer and return. Raises: OSError."""
        self.connection, self._refusal, self._make_reply = connection, refusal, reply
        self.client_address = ("", 0)
        self.rfile, self.wfile = io.BytesIO(_head(connection)), io.BytesIO()
        self.close_connection = True
        self.handle_one_request()
        connection.sendall(self.wfile.getvalue())

    def header(self, name: str) -> str:
        """Return a header of the request; empty without it."""
        return str(self.headers.get(name, ""))

    def do_GET(self) -> None:
        """Answer."""
        self._send(self._refusal(self.header("Authorization")) or self._make_reply(self))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request that there is: one line of text, and not the library's page of HTML."""
        if code == HTTPStatus.NOT_IMPLEMENTED:  # the library's word for a method that has no do_...
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "this page can be read and nothing else: use GET"
        told = message or HTTPStatus(code).phrase
        self._send(Reply(status=code, content=f"{plain(told)}\n".encode()))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        headers = {
            "Content-Type": reply.content_type, "Content-Encoding": reply.encoding, "WWW-Authenticate": reply.challenge,
            "Content-Length": str(len(reply.content)), "Cache-Control": "no-store",
            "Allow": "GET" if reply.status == HTTPStatus.METHOD_NOT_ALLOWED else "",
        }  # fmt: skip
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content)

    def log_message(self, *about: object) -> None:
        """Say nothing: a scrape is no event."""


def _head(connection: socket.socket) -> bytes:
    """Return a request up to its empty line. Raises: OSError: there is none in so many bytes, or in that time."""
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        part = connection.recv(MOST_HEAD_BYTES)
        head += part
        if not part or len(head) > MOST_HEAD_BYTES:
            raise ConnectionAbortedError
    return head


def _family(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Return how a host is listened on. Raises: OSError: nobody knows it."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, (str(address[0]), port)
