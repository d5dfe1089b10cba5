"""Several peers asked in one call of C: what is sent, what is waited for, where Python has to go on.

Covers: coordinator/ranks/transports/exchange.py and common/native/exchange.c over real sockets of both framings.
Does not cover: sessions (test_transports.py), whole meshes over frames (tests/e2e).
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import pytest

from common.native.peers import PLAIN_FRAME, TLS_RECORD, Peer, Tls
from coordinator.ranks.transports.exchange import LIMIT_MILLISECONDS, MOST_BYTES, Group, group_of

LENGTH = struct.Struct("<I")


@dataclass(eq=False)
class Session:
    """What a group needs of one, which keeps what became of the exchange."""

    plain: socket.socket
    framing: int = PLAIN_FRAME
    is_on_this_host: bool = False
    is_quiet: bool = True
    native: Tls | None = None
    received: bytes = b""
    sent_count: int = 0
    came: float = 0.0
    errors: tuple[int, int, int] = field(default=(0, 0, 0))

    def fileno(self) -> int:
        return self.plain.fileno()

    def sealed(self, framed: bytes) -> bytes:
        return framed

    def exchanged(self, peer: Peer, sealed: bytes, received: memoryview) -> None:
        self.received, self.sent_count, self.came = bytes(received), peer.sent_count, peer.came_nanoseconds / 1e9
        self.errors = (peer.send_error, peer.receive_error, peer.has_ended)


class Pair:
    """A session, and the peer's end of its connection."""

    def __init__(self, closing: ExitStack, framing: int = PLAIN_FRAME) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = closing.enter_context(socket.create_connection(listener.getsockname()))
            self.peer = closing.enter_context(listener.accept()[0])
        self.session = Session(ours, framing)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Close all sockets at the end."""
    with ExitStack() as stack:
        yield stack


def frame(message: bytes) -> bytes:
    """Return a message with its length before it."""
    return LENGTH.pack(len(message)) + message


def group(*pairs: Pair) -> Group:
    """Return what asks these."""
    return Group([pair.session for pair in pairs])


def test_each_peer_hears_the_message_and_each_answer_comes_with_its_instant(closing: ExitStack) -> None:
    """Whoever answers first: instants are of the clock of time.perf_counter, after the sending."""
    pairs = [Pair(closing) for _ in range(3)]

    def answer() -> None:
        for pair in reversed(pairs):
            heard = pair.peer.recv(99)
            pair.peer.sendall(frame(b"answer to " + heard[LENGTH.size :]))

    thread = threading.Thread(target=answer)
    began = time.perf_counter()
    thread.start()
    sent = group(*pairs).send(b"round")
    thread.join()
    assert [pair.session.received for pair in pairs] == [frame(b"answer to round")] * len(pairs)
    assert all(began <= sent <= pair.session.came <= time.perf_counter() for pair in pairs)
    assert {pair.session.errors for pair in pairs} == {(0, 0, 0)}


def test_a_record_of_tls_is_whole_when_its_last_byte_is_here(closing: ExitStack) -> None:
    """What its head says is big-endian, and more than one piece may bring it."""
    pair, body = Pair(closing, TLS_RECORD), bytes(300)
    record = b"\x17\x03\x03" + struct.pack(">H", len(body)) + body

    def answer() -> None:
        pair.peer.recv(99)
        for piece in (record[:3], record[3:200], record[200:]):
            pair.peer.sendall(piece)

    thread = threading.Thread(target=answer)
    thread.start()
    group(pair).send(b"round")
    thread.join()
    assert pair.session.received == record
    assert pair.session.came


def test_nobody_waits_longer_than_the_limit_for_who_is_silent(closing: ExitStack) -> None:
    """What others have answered is there, and half an answer too."""
    silent, half, quick = (Pair(closing) for _ in range(3))
    half.peer.sendall(frame(b"half")[:-1])
    quick.peer.sendall(frame(b"all"))
    began = time.perf_counter()
    group(silent, half, quick).send(b"round")
    assert LIMIT_MILLISECONDS / 1e3 <= time.perf_counter() - began < 4 * LIMIT_MILLISECONDS / 1e3
    assert (silent.session.received, silent.session.came) == (b"", 0.0)
    assert (half.session.received, half.session.came) == (frame(b"half")[:-1], 0.0)
    assert quick.session.received == frame(b"all")
    assert quick.session.came


def test_a_peer_that_has_ended_is_not_waited_for(closing: ExitStack) -> None:
    """Its last words come with it; the others' answers too."""
    ended, quick = Pair(closing), Pair(closing)
    ended.peer.sendall(b"by")
    ended.peer.close()
    quick.peer.sendall(frame(b"all"))
    began = time.perf_counter()
    group(ended, quick).send(b"round")
    assert time.perf_counter() - began < LIMIT_MILLISECONDS / 1e3
    assert ended.session.received == b"by"
    assert ended.session.errors[2] or ended.session.errors[1] == errno.ECONNRESET
    assert quick.session.received == frame(b"all")


def test_a_connection_that_is_broken_says_why(closing: ExitStack) -> None:
    """A reset, as of a machine that has started anew."""
    pair = Pair(closing)
    pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.peer.close()
    group(pair).send(b"round")
    assert {errno.ECONNRESET, errno.EPIPE} & set(pair.session.errors[:2])


def test_where_there_is_no_room_for_a_message_nobody_is_waited_for(closing: ExitStack) -> None:
    """What is left of it is known, for the session to send by itself; others have got all of theirs."""
    full, free = Pair(closing), Pair(closing)
    full.session.plain.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            full.session.plain.send(bytes(1 << 20))
    began = time.perf_counter()
    group(full, free).send(b"round")
    assert time.perf_counter() - began < LIMIT_MILLISECONDS / 1e3
    assert full.session.sent_count < len(frame(b"round")) == free.session.sent_count
    assert free.peer.recv(99) == frame(b"round")


def test_another_thread_that_shuts_a_connection_down_ends_the_waiting(closing: ExitStack) -> None:
    """As a person's Ctrl-C does, by interrupt()."""
    pair = Pair(closing)

    def shut() -> None:
        pair.peer.recv(99)
        pair.session.plain.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=shut)
    thread.start()
    began = time.perf_counter()
    group(pair).send(b"round")
    thread.join()
    assert time.perf_counter() - began < LIMIT_MILLISECONDS / 1e3
    assert pair.session.errors[2]


def test_long_messages_and_sessions_that_are_busy_are_left_to_each_session(closing: ExitStack) -> None:
    """A message that no one record takes, and one behind another that waits."""
    pairs = [Pair(closing), Pair(closing)]
    asked = group(*pairs)
    assert asked.takes(bytes(MOST_BYTES))
    assert not asked.takes(bytes(MOST_BYTES + 1))
    pairs[1].session.is_quiet = False
    assert not asked.takes(b"round")


def test_a_group_is_of_sessions_that_can_all_be_asked_so(closing: ExitStack) -> None:
    """One over gRPC or on this host has another way."""
    one, two = Pair(closing).session, Pair(closing).session
    assert group_of([one]) is not None
    assert group_of([one, None]) is None
    assert group_of([one, two]) is not None
