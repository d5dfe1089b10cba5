"""Does a node look for its next message for a moment only, and not at all where that was in vain or it is far away?

Covers: common/native/waiting.c, by what a lane over real sockets does (shardnode/listeners/answer_lane.py). Does not
cover: what looking gains, which takes a quiet machine (`make bench ARGS="--only speed"`); messages themselves
(test_round_in_c.py).
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from common.wire.framing import FrameReader, framed
from shardnode.listeners.answer_lane import AnswerLane, lane_of

WAIT_SECONDS, MOST_LOOKING_SECONDS = 0.01, 0.002
NUMBERS = np.ones((1, 3), np.float32)
MESSAGE = b"a message"


@pytest.fixture
def near() -> Iterator[tuple[socket.socket, AnswerLane]]:
    """Return a coordinator's end of a Unix socket, and the lane of a node of the same machine."""
    theirs, own = socket.socketpair()
    with theirs, own:
        yield theirs, lane_over(own)


def lane_over(own: socket.socket) -> AnswerLane:
    """Return a lane that waits for WAIT_SECONDS at most."""
    timeval = struct.pack("@ll", 0, round(WAIT_SECONDS * 1e6))
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    lane = lane_of(own, FrameReader(own, 1 << 16))
    assert lane is not None
    return lane


def wait_in_vain(lane: AnswerLane) -> float:
    """Return the processor seconds that a wait took, for which nothing came."""
    before = time.thread_time()
    with pytest.raises(TimeoutError):
        lane.answer_and_wait(b"head", NUMBERS)
    return time.thread_time() - before


def make_impatient(lane: AnswerLane) -> list[float]:
    """Let it wait in vain until it looks no more; return what each wait took."""
    took = []
    while not lane.sleeps_at_once and len(took) < 20:
        took.append(wait_in_vain(lane))
    assert lane.sleeps_at_once
    return took


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of the socket that both ends of a wait heed")
def test_who_waits_in_vain_sleeps_and_looks_no_more(near: tuple[socket.socket, AnswerLane]) -> None:
    """A fifth of a wait at most is spent looking; after some, on a busy machine twenty, they sleep at once."""
    _, lane = near
    assert min(make_impatient(lane)) < MOST_LOOKING_SECONDS


def test_messages_that_come_bring_the_looking_back(near: tuple[socket.socket, AnswerLane]) -> None:
    """After as many waits as sleep at once the next one looks again, and finds what is there."""
    theirs, lane = near
    make_impatient(lane)
    waits = 0
    while lane.sleeps_at_once:
        theirs.sendall(framed(MESSAGE))
        message = lane.answer_and_wait(b"head", NUMBERS)
        assert message is not None
        assert bytes(message) == MESSAGE
        waits += 1
    assert 0 < waits <= 4096


def test_nobody_looks_for_another_device() -> None:
    """Over TCP a wait in vain is no trouble, because it sleeps from its beginning."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as theirs:
        own, _ = server.accept()
        with own:
            lane = lane_over(own)
            for _ in range(20):
                wait_in_vain(lane)
            assert not lane.sleeps_at_once
            theirs.sendall(framed(MESSAGE))
            message = lane.answer_and_wait(b"head", NUMBERS)
            assert message is not None
            assert bytes(message) == MESSAGE
