"""A session in frames with another device: over TLS on TCP in a mesh, over TCP alone where its owner said --insecure.

Covers: connecting, sending without waiting for a slow link, who is silent, who is heard no more by other ways.
Does not cover: what is in the messages (framed.py), whose turn it is (arrivals.py), whom TLS trusts
(common/trust/tls_contexts.py).
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from common.errors import InputError, NodeLost, NodeTimeout, NotTrusted, ShardmeshError
from common.native.peers import PLAIN_FRAME, TLS_RECORD, Peer, Tls
from common.wire.addresses import socket_address
from common.wire.framing import Stream, framed, limit_silence
from common.wire.tcp_limits import bytes_under_way, prepare_tcp
from coordinator.ranks.transports.arrivals import WATCH_SECONDS, Arrivals
from coordinator.ranks.transports.carriers import FRAMES, Carrier
from coordinator.ranks.transports.framed import FramedSession
from coordinator.ranks.transports.transport import ROUND_LIMIT_SECONDS, SILENCE_SECONDS, Arrived

CONNECT_SECONDS = 2.0
"""A firewall that says nothing costs so much once, before rounds go over gRPC."""


def connect_framed(
    address: str, name: str, arrivals: Arrivals, secure: Callable[[socket.socket], Link] | None,
    is_silent: Callable[[], bool] = lambda: False, *, silence_seconds: float = SILENCE_SECONDS,
    round_limit_seconds: float = ROUND_LIMIT_SECONDS,
) -> FramedTcpClient:  # fmt: skip
    """Connect to a node's port for rounds.

    Args: address: host:port; secure: shakes hands over a connection; None: there is no TLS; the others: of the session.
    Raises: NodeLost: nobody is reached there in time; NotTrusted: another one than the node.
    """
    plain: socket.socket | None = None
    try:
        plain = socket.create_connection(socket_address(address), timeout=CONNECT_SECONDS)
        prepare_tcp(plain)
        limit_silence(plain, silence_seconds)
        link = PlainLink(plain) if secure is None else secure(plain)
    except InputError as error:  # it was heard over a link that has gone since
        raise NodeLost(f"{name} takes no rounds: {error}") from error
    except OSError as error:
        if plain is not None:
            plain.close()
        if isinstance(error, ssl.SSLCertVerificationError):
            raise NotTrusted(f"{name}: whoever answers at {address} is not it: {error.verify_message}") from error
        raise NodeLost(f"{name} takes no rounds on {address} ({_why(error)})") from error
    return FramedTcpClient(
        plain, link, name, arrivals, silence_seconds=silence_seconds, round_limit_seconds=round_limit_seconds,
        is_silent=is_silent,
    )  # fmt: skip


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError | BlockingIOError):
        return "no answer in time; is the port let through?"
    return error.strerror or str(error)


class Link(Stream, Protocol):
    """A connection that can make bytes for the socket without sending them."""

    @property
    def is_holding(self) -> bool:
        """Whether something lies here that the socket will not tell of."""

    native: Tls | None
    """What C is given to encrypt and decrypt; None: it cannot, or need not."""

    def sealed(self, framed: bytes) -> bytes:
        """Return what has to go over the socket so that the peer receives these bytes."""

    def unsent(self) -> bytes:
        """Return what C has encrypted and had no room for."""

    def opened(self, received: memoryview) -> bytes:
        """Return what the peer has sent in bytes that somebody else took off the socket; `recv_into` gives the rest.

        Raises: OSError.
        """


class PlainLink:
    """TCP as it is."""

    is_holding = False
    native: Tls | None = None

    def __init__(self, plain: socket.socket) -> None:
        self.sendall, self.sendmsg, self.recv_into = plain.sendall, plain.sendmsg, plain.recv_into
        self.shutdown, self.close = plain.shutdown, plain.close

    def sealed(self, framed: bytes) -> bytes:
        """See Link."""
        return framed

    def unsent(self) -> bytes:
        """See Link."""
        return b""

    def opened(self, received: memoryview) -> bytes:
        """See Link."""
        return bytes(received)


class FramedTcpClient(FramedSession):
    """See ShardClient."""

    passes_files = is_on_this_host = False
    carrier = Carrier(FRAMES)

    def __init__(
        self, plain: socket.socket, link: Link, name: str, arrivals: Arrivals, *,
        silence_seconds: float = SILENCE_SECONDS, round_limit_seconds: float = ROUND_LIMIT_SECONDS,
        is_silent: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """Args: link: `plain`, with TLS or without; is_silent: whether the node is heard no more by other ways."""
        super().__init__(link, name, silence_seconds, round_limit_seconds)
        self._plain, self._link, self._arrivals, self._is_silent = plain, link, arrivals, is_silent
        self.native = link.native
        self.framing = PLAIN_FRAME if isinstance(link, PlainLink) or link.native is not None else TLS_RECORD
        self._unsent: deque[memoryview] = deque()
        self._heard_at = self._asked_at = time.monotonic()
        self._owed = self._under_way = 0
        arrivals.add(self)

    @property
    def has_answer(self) -> bool:
        """See arrivals.Waiting."""
        return bool(self._inbox)

    def fileno(self) -> int:
        """See arrivals.Waiting."""
        return self._plain.fileno()

    def submit(self, message: bytes, files: Sequence[int] = ()) -> None:
        """See ShardClient."""
        assert not files, "passes_files says that there are none"
        if not self._owed:
            self._heard_at = self._asked_at = time.monotonic()
        self._owed += 1
        self._unsent.append(memoryview(self._link.sealed(framed(message))))
        if len(self._unsent) > 1:  # what waits for room goes first
            return
        try:
            is_sent = self._send()
        except OSError as error:
            self._unsent.clear()
            raise self._ended() or self.last_words() or self._lost(error) from error
        if not is_sent:
            self._arrivals.needs_room(self, needs=True)

    @property
    def together(self) -> FramedTcpClient:
        """See ShardClient."""
        return self

    @property
    def is_quiet(self) -> bool:
        """See exchange.Exchanged."""
        return not (self._unsent or self._inbox or self._reader.is_holding or self._link.is_holding)

    def sealed(self, framed: bytes) -> bytes:
        """See exchange.Exchanged."""
        return framed if self.native is not None else self._link.sealed(framed)

    def exchanged(self, peer: Peer, sealed: bytes, received: memoryview) -> None:
        """See exchange.Exchanged."""
        if not self._owed:
            self._heard_at = self._asked_at = time.monotonic()
        self._owed += 1
        if received:
            self._take_received(received, peer.came_nanoseconds / 1e9 or time.perf_counter())
        if number := peer.send_error or peer.receive_error:
            if not self._ended():
                self._fail(self.last_words() or self._lost(OSError(number, os.strerror(number))))
        elif peer.sent_count < len(sealed):
            left = sealed[peer.sent_count :] if self.native is None else self._link.unsent()
            self._unsent.append(memoryview(left))
            self._arrivals.needs_room(self, needs=True)

    def collect(self) -> Arrived:
        """See ShardClient."""
        if not self._inbox:
            self._asked_at = time.monotonic()
            self._arrivals.wait_for(self)
        found = self.kept()
        self._owed -= 1
        return found

    def take(self, now: float) -> None:
        """See arrivals.Waiting."""
        self._heard_at = time.monotonic()
        try:
            while True:
                self.keep(self.receive(0.0, now))
                if not self._reader.is_holding and not self._link.is_holding:
                    return
        except ShardmeshError as error:
            self._fail(error)

    def _take_received(self, received: memoryview, now: float) -> None:
        """Take what came in an exchange: one whole answer, nearly always."""
        try:
            message = self._reader.put(self._link.opened(received))
            if message is not None:
                self._heard_at = time.monotonic()
                self.keep(self.arrived(message, 0.0, now))
        except OSError as error:
            self._fail(self._lost(error))
        except ShardmeshError as error:
            self._fail(error)
        else:
            if self._reader.is_holding or self._link.is_holding:
                self.take(now)

    def flush(self) -> bool:
        """See arrivals.Waiting."""
        self._heard_at = time.monotonic()  # the link takes bytes: nobody is silent
        try:
            return self._send()
        except OSError as error:
            self._fail(self._lost(error))
            return True

    def look(self) -> None:
        """See arrivals.Waiting."""
        now = time.monotonic()
        under_way = bytes_under_way(self._plain)
        if under_way < self._under_way:  # a slow link has taken some, and so the peer's system has
            self._heard_at = now
        self._under_way = under_way
        if now - self._asked_at > self.round_limit_seconds:
            self._fail(self.too_long())
        elif now - self._heard_at > self._silence_seconds:
            self._fail(NodeTimeout(f"{self.name} takes no more messages") if self._unsent else self._silent())
        elif now - self._heard_at > WATCH_SECONDS and self._is_silent():
            self._fail(NodeLost(f"{self.name} is gone (it sends no heartbeats)"))

    def close(self) -> None:
        """See ShardClient."""
        self._arrivals.remove(self)
        self._link.close()

    def _send(self) -> bool:
        """Send what waits, as far as there is room; tell whether all is sent. Raises: OSError."""
        while self._unsent:
            try:
                sent = self._plain.send(self._unsent[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            if sent < len(self._unsent[0]):
                self._unsent[0] = self._unsent[0][sent:]
            else:
                self._unsent.popleft()
        return True

    def _fail(self, error: ShardmeshError) -> None:
        self._inbox.append(error)
        self._unsent.clear()
        self._arrivals.remove(self)

    def _ended(self) -> ShardmeshError | None:
        """Return how the session has ended, if that was noticed before."""
        return next((one for one in self._inbox if isinstance(one, ShardmeshError)), None)
