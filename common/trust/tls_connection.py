"""A connection that speaks TLS, as quick as Python allows: one system call for what is sent, one for what has come.

    connection = TlsConnection(plain, context, server_side=True)
    connection.do_handshake()

Covers: bytes between a socket that blocks and OpenSSL, which see each other through memory only. Does not cover:
contexts and whom they trust (tls_contexts.py), messages (common/wire/framing.py). Rounds use it where C cannot take
part (rounds_tls.py).

Python's own SSLSocket lets OpenSSL read the socket: five bytes of a record's head, then the record, two calls each; and
what it has read ahead no poll shows. Not safe for several threads, but one may send while no other does anything.
"""

from __future__ import annotations

import socket
import ssl
from typing import cast

from common.native.peers import Tls
from common.trust.over_socket import OverSocket

READ_BYTES = 1 << 18
"""At once: some records of 16 KiB."""
WRITE_BYTES = 1 << 18
"""So much is encrypted before it is sent: what lies in memory twice."""


class TlsConnection(OverSocket):
    """A socket's names, as far as common/wire/framing.py uses them. It owns the socket."""

    native: Tls | None = None
    """C takes no part."""

    def __init__(
        self, plain: socket.socket, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
    ) -> None:
        """Take a connected socket that blocks; nothing is sent yet. Args: server_hostname: whom the peer has to be."""
        self.plain = plain
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=server_hostname)
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)

    def do_handshake(self) -> None:
        """Find out who the peer is.

        Raises: ssl.SSLError: the peer is not whom the context trusts, or speaks no TLS; OSError: the connection is gone
        or too slow.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send_out()
                if not self._take_in():
                    raise ConnectionAbortedError("the peer broke off the handshake") from None
            except ssl.SSLError:
                self._send_out()  # why, so that the peer can say it
                raise
            else:
                self._send_out()
                return

    @property
    def peer_certificate(self) -> bytes:
        """The peer's certificate in DER, verified; empty without one."""
        return self._tls.getpeercert(binary_form=True) or b""

    def sealed(self, framed: bytes | memoryview) -> bytes:
        """Return what has to go over the socket so that the peer receives these bytes."""
        self._tls.write(framed)
        return self._out.read()

    def unsent(self) -> bytes:
        """Return what was encrypted and not sent by somebody else: nothing."""
        return b""

    def opened(self, received: memoryview) -> bytes:
        """Return what the peer has sent in bytes that somebody else took off the socket; `recv_into` gives the rest.

        Raises: ssl.SSLError: it is not the peer's.
        """
        self._in.write(received)
        try:
            return self._tls.read(len(received))
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):  # not a whole record; `recv_into` finds an end itself
            return b""

    def opened_all(self, received: memoryview) -> tuple[list[bytes], bytes]:
        """Return all that the peer has sent in bytes that somebody else took off the socket, and what it has to be sent
        for that. Raises: ssl.SSLError: it is not the peer's; ConnectionAbortedError: the peer has ended.
        """
        self._in.write(received)
        parts: list[bytes] = []
        try:
            while True:
                parts.append(self._tls.read(READ_BYTES))
        except ssl.SSLWantReadError:
            return parts, self._out.read()
        except ssl.SSLZeroReturnError:
            raise ConnectionAbortedError("the peer has ended") from None

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of it. Raises: OSError."""
        if len(data) <= WRITE_BYTES:
            self._tls.write(data)
            self.plain.sendall(self._out.read())
            return
        view = memoryview(data)
        for first in range(0, len(view), WRITE_BYTES):
            self._tls.write(view[first : first + WRITE_BYTES])
            self.plain.sendall(self._out.read())

    def recv_into(self, view: memoryview) -> int:
        """Put what has come into `view`, waiting for the first byte; return how many, 0 at the end. Raises: OSError."""
        if not self.is_holding and not self._take_in():
            return 0
        while True:
            try:
                return cast("int", self._tls.read(len(view), view))  # as bytes without a buffer, say the stubs
            except ssl.SSLWantReadError:
                if self._out.pending:  # an answer to a change of keys
                    self._send_out()
            except ssl.SSLZeroReturnError:
                return 0
            if not self._take_in():
                return 0

    @property
    def is_holding(self) -> bool:
        """Whether something lies here that the socket will not tell of, if perhaps not a whole record."""
        return bool(self._tls.pending() or self._in.pending)

    def _send_out(self) -> None:
        data = self._out.read()
        if data:
            self.plain.sendall(data)

    def _take_in(self) -> int:
        count = self.plain.recv_into(self._view)
        if count:
            self._in.write(self._view[:count])
        return count
