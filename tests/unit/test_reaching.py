"""Does who waits for a peer stop when it is gone, and not before it could have answered?

Covers: common/wire/reaching.py with a port where nobody listens, and with a server that has no thread left.
Does not cover: real nodes (tests/e2e).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from common.errors import NodeLost
from common.wire.reaching import GRACE_SECONDS, wait_until_reached

CLOSED_SECONDS = 0.1
"""gRPC's own future of a channel that is ready would make it 0.2 s."""


@pytest.fixture
def nobody() -> Iterator[grpc.Channel]:
    """Return a channel to where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with grpc.insecure_channel(f"127.0.0.1:{bound.getsockname()[1]}") as channel:
            yield channel


def test_a_peer_that_is_gone_is_not_waited_for_to_the_limit(nobody: grpc.Channel) -> None:
    """But for a second: it may have come back, and be heard only later."""
    started = time.monotonic()
    with pytest.raises(NodeLost, match="kitchen is away"):
        wait_until_reached(nobody, 30.0, "kitchen is away", lambda: True)
    assert GRACE_SECONDS <= time.monotonic() - started < 10.0


def test_a_peer_that_is_still_heard_is_waited_for_to_the_limit(nobody: grpc.Channel) -> None:
    """Nobody says that it is gone."""
    started = time.monotonic()
    with pytest.raises(NodeLost, match="kitchen is away"):
        wait_until_reached(nobody, 1.3, "kitchen is away")
    assert time.monotonic() - started >= 1.3


def test_a_peer_whose_threads_are_all_busy_is_there_and_its_channel_is_closed_at_once() -> None:
    """A load asks every node a few things, each on a channel of its own: what closing one costs is paid many times."""
    busy = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            threads.submit(busy.wait)
            seconds = []
            for _ in range(3):  # the machine may be busy with something else
                channel = grpc.insecure_channel(f"127.0.0.1:{port}")
                wait_until_reached(channel, 30.0, "kitchen is away", lambda: True)
                started = time.monotonic()
                channel.close()
                seconds.append(time.monotonic() - started)
        finally:
            busy.set()
            server.stop(None).wait()
    assert min(seconds) < CLOSED_SECONDS
