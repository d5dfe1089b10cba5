"""Rounds that one call of C norms, sends, takes, checks and adds, and a node's answer that waits for the next message.

Covers: common/native/rounds.c, common/native/sweep.c and coordinator/ranks/quick_rounds.py over real sockets, plain and
with TLS by OpenSSL's own functions: what they do, and what is left to Python as it came. Does not cover: sessions
(test_transports.py), whole meshes (tests/e2e).
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
from common.weights.slice_format import FFN
from common.weights.stored_numbers import Floats
from common.wire.framing import FrameReader, framed
from common.wire.packed_round import DONE_BYTES, done_bytes
from coordinator.ranks import quick_rounds
from coordinator.ranks.past_rounds import PASS_ON_SECONDS
from coordinator.ranks.quick_rounds import Ran
from coordinator.ranks.round_record import block_at
from shardnode.listeners.answer_lane import AnswerLane, lane_of
from tests.contract.test_exchange import Session
from tests.support.mesh_identities import MeshIdentities
from tests.support.quick_sessions import BLOCKS, CALL_ID, Sweeping, head_of, residual_of, step_by_step

WIDTH, SECONDS, LAST = 5, 10.0, BLOCKS - 1
ROWS = np.arange(WIDTH, dtype=np.float32)[None]
LEFT = {
    "another call": framed(done_bytes(CALL_ID, *range(1, 8)) + ROWS.tobytes()),
    "fewer numbers": framed(done_bytes(CALL_ID + 1, *range(1, 8)) + ROWS.tobytes()[:-4]),
    "more numbers": framed(done_bytes(CALL_ID + 1, *range(1, 8)) + ROWS.tobytes() + bytes(4)),
    "none that are finite": framed(done_bytes(CALL_ID + 1, *range(1, 8)) + np.full_like(ROWS, np.nan).tobytes()),
    "numbers in memory": framed(b"\0\1" + done_bytes(CALL_ID + 1, *range(1, 8))[2:] + ROWS.tobytes()),
    "a message of protobuf": framed(b"\x08\x08" + bytes(DONE_BYTES - 2) + ROWS.tobytes()),
    "a word more": framed(done_bytes(CALL_ID + 1, *range(1, 8)) + ROWS.tobytes()) + b"\x01",
    "a length alone": struct.pack("<I", 1 << 30),
    "half of it": framed(done_bytes(CALL_ID + 1, *range(1, 8)) + ROWS.tobytes())[:-3],
}
"""By what is odd about it: an answer to a sweep's second round that C leaves to Python."""


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


class Answering:
    """Peers that answer each round in a thread."""

    def __init__(self, wires: list[Wire], rounds: list[list[bytes]]) -> None:
        """Args: rounds: what each peer says in each round."""
        self._wires, self._rounds = wires, rounds
        self.heard: list[list[bytes | None]] = []
        """In each round, by peer."""

    def work(self) -> None:
        """Answer so many rounds, and hear what else comes until the end."""
        readers = [FrameReader(wire.stream(1), 1 << 20) for wire in self._wires]
        for answers in self._rounds:
            self.heard.append([reader.receive() for reader in readers])
            for wire, words in zip(self._wires, answers, strict=True):
                wire.stream(1).sendall(words)


PARTS = [np.full_like(ROWS, one) for one in (1e8, 1.0, -1e8)]
SUM = (PARTS[0] + PARTS[1]) + PARTS[2]


def usual(place: int) -> list[bytes]:
    """Return what peers answer to a block."""
    return [
        framed(done_bytes(CALL_ID + place, 10, *range(rank, rank + 6)) + part.tobytes())
        for rank, part in enumerate(PARTS)
    ]


def swept(wires: list[Wire], rounds: list[list[bytes]]) -> tuple[Ran, Floats, Sweeping, list[Session], Answering]:
    """Run a sweep whose rounds peers answer so; return also the residual stream that it has left."""
    sessions, hidden = [wire.session() for wire in wires], ROWS.copy()
    sweeping, answering, found = Sweeping(sessions), Answering(wires, rounds), list[Ran]()
    during(answering.work, lambda: found.append(sweeping.run(hidden)))
    return found[0], hidden, sweeping, sessions, answering


@pytest.mark.parametrize("pass_on_seconds", [PASS_ON_SECONDS, 0.0])
def test_rounds_follow_one_another_with_the_bits_of_one_by_one(
    wires: list[Wire], monkeypatch: pytest.MonkeyPatch, pass_on_seconds: float
) -> None:
    """Norm, sum in rank order (on which floats depend), late bias; what answers say of their times is kept as it is."""
    monkeypatch.setattr(quick_rounds, "PASS_ON_SECONDS", pass_on_seconds)
    ran, hidden, sweeping, _, answering = swept(wires, [usual(place) for place in range(BLOCKS)])
    expected = list(step_by_step(ROWS, [SUM] * BLOCKS))
    assert answering.heard == [[message] * len(wires) for message, _ in expected]
    assert (ran.next_block, ran.asked, sweeping.is_waiting) == (BLOCKS, None, False)
    assert ran.output is not None
    assert np.array_equal(ran.output, SUM + residual_of(WIDTH).blocks[FFN].late_biases[-1])  # type: ignore[index]
    assert np.array_equal(hidden, expected[-1][1])
    assert [(one.layer, one.kind) for one in sweeping.records] == [block_at(place) for place in range(BLOCKS)]
    for record in sweeping.records:
        assert record.started < record.sent <= record.last.arrived <= record.finished
        told = sorted(record.parts)
        assert [part[2:4] + part[6:] for part in told] == [tuple(range(rank, rank + 6)) for rank in range(3)]
        assert {(part.sent_bytes, part.received_bytes) for part in told} == {(24 + 4 * WIDTH, 72 + 4 * WIDTH)}


@pytest.mark.parametrize("odd", LEFT)
def test_what_is_odd_is_left_as_it_came(wires: list[Wire], odd: str) -> None:
    """No number of such a round is believed, none is sent after it; sessions get all that has come, to judge it."""
    answers = usual(1)
    answers[1] = LEFT[odd]
    ran, hidden, sweeping, sessions, answering = swept(wires, [usual(0), answers])
    (_, _), (message, residual_stream) = step_by_step(ROWS, [SUM, SUM])
    assert (ran.next_block, ran.output, len(sweeping.records)) == (1, None, 1)
    assert ran.asked is not None
    assert head_of(1) + ran.asked.rows.tobytes() == message == answering.heard[1][0]
    assert np.array_equal(hidden, residual_stream)
    assert sweeping.records[0].finished <= ran.asked.started <= ran.asked.sent
    assert [session.received for session in sessions] == answers
    for wire in wires:
        wire.plain[1].setblocking(False)
        with pytest.raises(BlockingIOError):
            wire.plain[1].recv(1)


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
    session, seen = wire.session(), list[bytes]()
    sweeping, done = Sweeping([session]), done_bytes(CALL_ID + LAST, *range(1, 8))

    def serve() -> None:
        frame: bytes | memoryview | None = FrameReader(wire.stream(1), 1 << 20).receive()
        while frame is not None and len(seen) < 6:
            seen.append(bytes(frame))
            if len(seen) % 2 and end == 1:
                assert change(wire.ends[1]._ssl, 1) == 1
            frame = lane.answer_and_wait(done, ROWS)

    def ask() -> None:
        for count in range(6):
            if count % 2 and end == 0:
                assert change(wire.ends[0]._ssl, 1) == 1
            if sweeping.run(ROWS.copy(), LAST).asked is not None:
                assert session.received == framed(done + ROWS.tobytes())
        wire.plain[0].shutdown(socket.SHUT_WR)

    during(serve, ask)
    assert [message[: len(head_of(LAST))] for message in seen] == [head_of(LAST)] * 6
    assert len({*seen}) == 1


def test_a_record_that_somebody_has_changed_ends_the_session(closing: ExitStack) -> None:
    """Nothing of it is believed, and it counts as a broken connection."""
    wire = Wire(closing, is_secure=True)
    session = wire.session()

    def answer() -> None:
        wire.plain[1].recv(1 << 16)
        sealed = bytearray(wire.ends[1].sealed(framed(done_bytes(CALL_ID + LAST, *range(1, 8)) + ROWS.tobytes())))
        sealed[-1] ^= 1
        wire.plain[1].sendall(sealed)

    during(answer, lambda: Sweeping([session]).run(ROWS.copy(), LAST))
    assert (session.received, session.errors[0], session.errors[1] != 0) == (b"", 0, True)
