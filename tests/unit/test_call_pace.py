"""Are calls counted whichever way a peer's bytes are cut, and is one that opens too many not read from?

Covers: common/trust/call_pace.py, how a relay waits. Does not cover: what becomes of calls (tests/attacks).
"""

from __future__ import annotations

import socket
import threading
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from common.trust.call_pace import CallPace, Opened
from common.trust.relay import relay
from common.trust.tls_connection import TlsConnection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LIMIT_SECONDS = 10.0


def frame(kind: int, length: int) -> bytes:
    """Return a frame of HTTP/2."""
    return length.to_bytes(3, "big") + bytes([kind, 4]) + (1).to_bytes(4, "big") + bytes(length)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 300))), st.lists(st.integers(0, 40)))
def test_calls_are_counted_however_their_bytes_come(frames: list[tuple[int, int]], cuts: list[int]) -> None:
    """Each frame that opens one, and nothing else."""
    sent = PREFACE + b"".join(frame(kind, length) for kind, length in frames)
    opened, count, at = Opened(), 0, 0
    for cut in cuts:
        count += opened.count([sent[at : at + cut], b""])
        at += cut
    count += opened.count([sent[at:]])
    assert count == sum(kind == 1 for kind, _ in frames)


def test_a_peer_waits_for_as_long_as_it_has_opened_too_many_calls_and_the_owner_does_not() -> None:
    """Whatever connection they came by."""
    pace = CallPace(at_once=4, a_second=0.001, free="owner")

    def delay(name: str, count: int) -> float:
        """Have a peer open calls over a connection of their own."""
        of_connection = pace.of(name)
        assert of_connection is not None
        return of_connection([PREFACE, *[frame(1, 9)] * count])

    assert [delay("kitchen", 2), delay("kitchen", 2)] == [0.0, 0.0]
    assert delay("kitchen", 1) > 500
    assert delay("kitchen", 0) == 0.0
    assert delay("attic", 4) == 0.0
    assert pace.of("owner") is None


class _Plain:
    """A connection whose bytes are what they are."""

    def __init__(self, plain: socket.socket) -> None:
        self.plain = plain

    def sealed(self, data: memoryview) -> bytes:
        return bytes(data)

    def opened_all(self, received: memoryview) -> tuple[list[bytes], bytes]:
        return [bytes(received)], b""


def test_who_is_not_read_from_is_answered_still() -> None:
    """What it has opened so far gets its answers meanwhile; what it sends next arrives later."""
    peer, plain = socket.socketpair()
    inner, server = socket.socketpair()
    delays = iter([0.3, 0.0])
    connection = cast("TlsConnection", _Plain(plain))
    carrying = threading.Thread(target=relay, args=(connection, inner, lambda received: next(delays)), daemon=True)
    carrying.start()
    for end in (peer, server):
        end.settimeout(LIMIT_SECONDS)
    peer.sendall(b"first")
    assert server.recv(99) == b"first"
    peer.sendall(b"second")
    server.sendall(b"answer")
    assert peer.recv(99) == b"answer"
    assert server.recv(99) == b"second"
    peer.close()
    carrying.join(LIMIT_SECONDS)
    assert not carrying.is_alive()
    for end in (plain, inner, server):
        end.close()
