"""How does a small page stay there for who may read it, whatever others do to its port?

Covers: requests one after another, a limit to each one's length and to its time. Does not cover: connections, their
number and threads (callers.py), what is answered (metrics_page.py), TLS and who may come in
(common/trust/metrics_door.py).

A connection has SECONDS from being accepted to its first answer, handshake included. Whom a door has let in may then
ask again over it, as Prometheus does: a handshake and a thread for each scrape cost more than the page. He is asked for
his rights each time, and the connection ends with the first request that he may not make. Without a door one is all.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Protocol

from common.program.callers import Callers
from common.program.places import Caller, Places
from common.wording import plain

MOST_CONNECTIONS = 16
MOST_THREADS = 2 * MOST_CONNECTIONS
"""Those of connections that have just lost their place among them."""
SECONDS = 10.0
"""As long as a scrape may take by default."""
REST_SECONDS = 70.0
"""From one request to the next: one a minute is the longest that people have."""
MOST_KEPT_SECONDS = 3600.0
"""After that a connection ends with an answer: whoever comes shows his certificate again."""
MOST_HEAD_BYTES = 8192


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


class PageServer:
    """A server on one address. Raises on construction: OSError."""

    def __init__(
        self, host: str, port: int, reply: Callable[[Request], Reply], door: Door | None,
        count: Callable[[str], None] = lambda reason: None,
    ) -> None:  # fmt: skip
        """Args: reply: asked for each request that may be answered, by several threads; door: None: all may come;
        count: as Callers.
        """
        self._reply, self._door = reply, door
        places = Places(connections=MOST_CONNECTIONS, threads=MOST_THREADS, seconds=SECONDS)
        self._callers = Callers(
            host, port, places, self._answer, name="metrics", refused="metrics refused",
            failed="metrics page failed", count=count,
        )  # fmt: skip
        self.port = self._callers.port

    def close(self) -> None:
        """Listen no more and end all connections; who is being answered has a moment."""
        self._callers.close()

    def _answer(self, caller: Caller) -> None:
        if self._door is not None:
            if not self._callers.replace(caller, self._door.wrapped):
                return
            self._door.greet(caller.connection)
        handler, first = _Handler(caller.connection, self._let_in(caller), self._reply), b""
        until = time.monotonic() + MOST_KEPT_SECONDS
        while True:
            handler.answer(first, may_stay=self._door is not None and time.monotonic() < until)
            if handler.close_connection or not self._callers.rest(caller, REST_SECONDS):
                return
            first = caller.connection.recv(MOST_HEAD_BYTES)
            if not first or not self._callers.ask(caller):
                return

    def _let_in(self, caller: Caller) -> Callable[[str], Reply | None]:
        """Return what tells, by a request's authorization, what its caller is answered instead; None: he may read."""

        def refusal(authorization: str) -> Reply | None:
            refused = None if self._door is None else self._door.refusal(caller.connection, authorization)
            if refused is None:
                self._callers.admit(caller)
            else:
                self._callers.tell(caller.host, refused.content.decode().strip())
            return refused

        return refusal


class _Handler(BaseHTTPRequestHandler):
    """Requests of a connection, and their answers."""

    server_version, sys_version, protocol_version = "shardmesh", "", "HTTP/1.1"

    def __init__(
        self, connection: socket.socket, refusal: Callable[[str], Reply | None], reply: Callable[[Request], Reply]
    ) -> None:  # fmt: skip
        # Not the library's __init__, which answers.
        self.connection, self._refusal, self._make_reply = connection, refusal, reply
        self.client_address = ("", 0)
        self._may_stay, self._known_head = False, b""

    def answer(self, first: bytes, *, may_stay: bool) -> None:
        """Read a request and answer it; `close_connection` tells whether it was the last one.

        Args: first: what of the request is here; may_stay: whether another one may follow. Raises: OSError.
        """
        head = _head(self.connection, first)
        self._may_stay, self.wfile = may_stay, io.BytesIO()
        if head == self._known_head:  # who reads a page asks for it with the same bytes each time
            self.close_connection = False
            self.do_GET()
        else:
            self.rfile, self.close_connection = io.BytesIO(head), True
            self.handle_one_request()
            self._known_head = b"" if self.close_connection else head
        self.connection.sendall(self.wfile.getvalue())

    def header(self, name: str) -> str:
        """Return a header of the request; empty without it."""
        return str(self.headers.get(name, ""))

    def do_GET(self) -> None:
        """Answer."""
        refused = self._refusal(self.header("Authorization"))
        # Bytes beyond its empty line are a body, or a request that came too early: neither is asked for here.
        has_body = bool(self.rfile.read(1) or self.header("Content-Length") or self.header("Transfer-Encoding"))
        self._may_stay = self._may_stay and refused is None and not has_body
        self._send(refused or self._make_reply(self))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request that there is: one line of text, and not the library's page of HTML."""
        if code == HTTPStatus.NOT_IMPLEMENTED:  # the library's word for a method that has no do_...
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "this page can be read and nothing else: use GET"
        told = message or HTTPStatus(code).phrase
        self._send(Reply(status=code, content=f"{plain(told)}\n".encode()))

    def _send(self, reply: Reply) -> None:
        if reply.status != HTTPStatus.OK or not self._may_stay:
            self.close_connection = True
        self.send_response(reply.status)
        headers = {
            "Content-Type": reply.content_type, "Content-Encoding": reply.encoding, "WWW-Authenticate": reply.challenge,
            "Content-Length": str(len(reply.content)), "Cache-Control": "no-store",
            "Allow": "GET" if reply.status == HTTPStatus.METHOD_NOT_ALLOWED else "",
            "Connection": "close" if self.close_connection else "",
        }  # fmt: skip
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content)

    def log_message(self, *about: object) -> None:
        """Say nothing: a scrape is no event."""


def _head(connection: socket.socket, head: bytes) -> bytes:
    """Return a request up to its empty line, at least. Args: head: what of it is here.

    Raises: OSError: there is no empty line in so many bytes, or in that time.
    """
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        part = connection.recv(MOST_HEAD_BYTES)
        head += part
        if not part or len(head) > MOST_HEAD_BYTES:
            raise ConnectionAbortedError
    return head
