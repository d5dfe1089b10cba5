"""A round that one call of C frames, seals, sends, takes, checks and adds, and a node's answer that waits for the next.

Covers: common/native/rounds.c over real sockets, plain and with TLS by OpenSSL's own functions: what it does, and what
it leaves to Python as it came. Does not cover: sessions (test_transports.py), whole meshes (tests/e2e).
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from common.errors import ProtocolError
from common.trust.certificates import NODE, PeerName
from common.trust.libssl import libssl
from common.trust.native_tls import NativeHandshakes, NativeTlsConnection
from common.wire.framing import FrameReader, framed
from common.wire.packed_round import DONE_BYTES, done_bytes, next_bytes
from coordinator.ranks.round_record import PackedParts
from coordinator.ranks.transports.exchange import Group
from shardnode.listeners.answer_lane import AnswerLane, lane_of
from tests.contract.test_exchange import Session
from tests.support.mesh_identities import MeshIdentities

WIDTH, CALL_ID, SECONDS = 5, 7, 10.0
ROWS = np.arange(WIDTH, dtype=np.float32)[None]
HEAD = next_bytes("ffn", 3, CALL_ID, 2, tells_waits=False)
LEFT = {
    "another call": framed(done_bytes(CALL_ID + 1, *range(1, 8)) + ROWS.tobytes()),
    "fewer numbers": framed(done_bytes(CALL_ID, *range(1, 8)) + ROWS.tobytes()[:-4]),
    "more numbers": framed(done_bytes(CALL_ID, *range(1, 8)) + ROWS.tobytes() + bytes(4)),
    "none that are finite": framed(done_bytes(CALL_ID, *range(1, 8)) + np.full(WIDTH, np.nan, np.float32).tobytes()),
    "numbers in memory": framed(b"\0\1" + done_bytes(CALL_ID, *range(1, 8))[2:] + ROWS.tobytes()),
    "a message of protobuf": framed(b"\x08\x07" + bytes(DONE_BYTES - 2) + ROWS.tobytes()),
    "a word more": framed(done_bytes(CALL_ID, *range(1, 8)) + ROWS.tobytes()) + b"\x01",
    "a length alone": struct.pack("<I", 1 << 30),
    "half of it": framed(done_bytes(CALL_ID, *range(1, 8)) + ROWS.tobytes())[:-3],
}
"""By what is odd about it: an answer that C leaves to Python."""


class Wire:
    """Two ends of a connection, of which either may be C's."""

    def __init__(self, closing: ExitStack, *, is_secure: bool) -> None:
        self.plain = [closing.enter_context(one) for one in socket.socketpair()]
        self.ends: list[NativeTlsConnection] = []
        if not is_secure:
            return
        found, mesh = libssl(), MeshIdentities()
        if found is None:
            pytest.skip("this Python keeps its OpenSSL to itself")
        node = mesh.node()
        name = PeerName(mesh=mesh.mesh, role=NODE, name="kitchen").dns
        self.ends = [
            NativeHandshakes.client(found, mesh.coordinator()).wrap(self.plain[0], name),
            NativeHandshakes.server(found, node, node.authority).wrap(self.plain[1]),
        ]
        thread = threading.Thread(target=self.ends[1].do_handshake)
        thread.start()
        self.ends[0].do_handshake()
        thread.join()

    def stream(self, end: int) -> socket.socket | NativeTlsConnection:
        return self.ends[end] if self.ends else self.plain[end]

    def session(self) -> Session:
        """Return what a group asks."""
        made = Session(self.plain[0])
        made.native = self.ends[0].native if self.ends else None
        return made

    def lane(self) -> tuple[AnswerLane, FrameReader]:
        """Return what a node answers with."""
        reader = FrameReader(self.stream(1), 1 << 20)
        lane = lane_of(self.stream(1), reader)
        assert lane is not None
        return lane, reader


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Close all sockets at the end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def wires(request: pytest.FixtureRequest, closing: ExitStack) -> list[Wire]:
    """Return connections of one kind."""
    return [Wire(closing, is_secure=request.param) for _ in range(3)]


def during(work: Callable[[], object], run: Callable[[], object]) -> None:
    """Run something while a thread works."""
    thread = threading.Thread(target=work)
    thread.start()
    run()
    thread.join(SECONDS)
    assert not thread.is_alive()


def ran(wires: list[Wire], answers: list[bytes]) -> tuple[bytes | None, np.ndarray, list[Session], list[bytes | None]]:
    """Run a round; return what C says, the sum, the sessions, and what each peer has heard."""
    sessions, total = [wire.session() for wire in wires], np.empty_like(ROWS)
    heard: list[bytes | None] = []
    found: list[bytes | None] = []

    def answer() -> None:
        for wire, words in zip(wires, answers, strict=True):
            heard.append(FrameReader(wire.stream(1), 1 << 20).receive())
            wire.stream(1).sendall(words)

    during(answer, lambda: found.append(Group(sessions).run(HEAD, ROWS, total)))
    return found[0], total, sessions, heard


def test_all_hear_the_rows_and_parts_are_added_in_rank_order(wires: list[Wire]) -> None:
    """Float addition depends on the order; what answers say of their times is kept as it is."""
    parts = [np.full_like(ROWS, one) for one in (1e8, 1.0, -1e8)]
    answers = [
        framed(done_bytes(CALL_ID, 10, *range(rank, rank + 6)) + part.tobytes()) for rank, part in enumerate(parts)
    ]
    answered, total, _, heard = ran(wires, answers)
    assert answered is not None
    assert np.array_equal(total, (parts[0] + parts[1]) + parts[2])
    assert heard == [HEAD + ROWS.tobytes()] * len(wires)
    told = PackedParts((0, 1, 2), answered, 11, 12).parts()
    assert [part[2:4] + part[6:] for part in told] == [tuple(range(rank, rank + 6)) for rank in range(3)]
    assert all(part.arrived > 0 and (part.sent_bytes, part.received_bytes) == (11, 12) for part in told)


@pytest.mark.parametrize("odd", LEFT)
def test_what_is_odd_is_left_as_it_came(wires: list[Wire], odd: str) -> None:
    """No number of such a round is believed; each session gets all that has come, to judge by itself."""
    usual = framed(done_bytes(CALL_ID, *range(1, 8)) + ROWS.tobytes())
    answered, _, sessions, _ = ran(wires, [usual, LEFT[odd], usual])
    assert answered is None
    assert [session.received for session in sessions] == [usual, LEFT[odd], usual]


def test_a_node_answers_and_hears_the_next_message(wires: list[Wire]) -> None:
    """Short ones in the same memory, the same object for the same length; long ones, two at once and an end too."""
    lane, ours = wires[0].lane()
    numbers, coordinator = np.ones((1, 3), np.float32), wires[0].stream(0)
    reader = FrameReader(coordinator, 1 << 20)
    seen: list[object] = []

    def ask() -> None:
        for message in (b"first", b"again", bytes(100_000), b"two", None):
            assert reader.receive() == b"head" + numbers.tobytes()
            if message is None:
                wires[0].plain[0].shutdown(socket.SHUT_RDWR)
            else:
                coordinator.sendall(framed(message) + (framed(b"at once") if message == b"two" else b""))

    def serve() -> None:
        for words in (b"first", b"again"):
            assert lane.takes(numbers)
            message = lane.answer_and_wait(b"head", numbers)
            assert message == words
            seen.append(message)
        seen.append(lane.answer_and_wait(b"head", numbers))
        seen.append(lane.answer_and_wait(b"head", numbers))
        assert not lane.takes(numbers)  # the second one waits where C does not look
        seen.append(ours.receive())
        assert lane.takes(numbers)
        seen.append(lane.answer_and_wait(b"head", numbers))

    during(ask, serve)
    assert seen[0] is seen[1]
    assert [seen[2], seen[3], seen[4], seen[5]] == [bytes(100_000), b"two", b"at once", None]


def test_a_message_that_is_cut_short_is_no_message(wires: list[Wire]) -> None:
    """As the reader finds it who goes on."""
    lane, _ = wires[0].lane()
    wires[0].stream(0).sendall(framed(b"whole")[:-1])
    wires[0].plain[0].shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError, match="ended inside a message"):
        lane.answer_and_wait(b"head", np.ones((1, 3), np.float32))


@pytest.mark.parametrize("end", [0, 1])
def test_keys_change_while_a_session_goes_on(closing: ExitStack, end: int) -> None:
    """Whoever asks for new keys: the other answers that with its next message, and nothing is lost."""
    wire = Wire(closing, is_secure=True)
    found = libssl()
    assert found is not None
    change = found._library.SSL_key_update
    change.argtypes, change.restype = (ctypes.c_void_p, ctypes.c_int), ctypes.c_int
    lane, _ = wire.lane()
    session, numbers = wire.session(), np.empty_like(ROWS)
    group, seen = Group([session]), []
    done = done_bytes(CALL_ID, *range(1, 8))

    def serve() -> None:
        frame = FrameReader(wire.stream(1), 1 << 20).receive()
        while frame is not None and len(seen) < 6:
            seen.append(bytes(frame))
            if len(seen) % 2 and end == 1:
                assert change(wire.ends[1]._ssl, 1) == 1
            frame = lane.answer_and_wait(done, ROWS)

    def ask() -> None:
        for count in range(6):
            if count % 2 and end == 0:
                assert change(wire.ends[0]._ssl, 1) == 1
            if group.run(HEAD, ROWS, numbers) is None:
                assert session.received == framed(done + ROWS.tobytes())
        wire.plain[0].shutdown(socket.SHUT_WR)

    during(serve, ask)
    assert seen == [HEAD + ROWS.tobytes()] * 6


def test_a_record_that_somebody_has_changed_ends_the_session(closing: ExitStack) -> None:
    """Nothing of it is believed, and it counts as a broken connection."""
    wire = Wire(closing, is_secure=True)
    session = wire.session()

    def answer() -> None:
        wire.plain[1].recv(1 << 16)
        sealed = bytearray(wire.ends[1].sealed(framed(done_bytes(CALL_ID, *range(1, 8)) + ROWS.tobytes())))
        sealed[-1] ^= 1
        wire.plain[1].sendall(sealed)

    during(answer, lambda: Group([session]).run(HEAD, ROWS, np.empty_like(ROWS)))
    assert (session.received, session.errors[0], session.errors[1] != 0) == (b"", 0, True)
