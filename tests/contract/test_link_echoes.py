"""Are ways to nodes measured while sweeps go on and only then, and does measuring end when it is told to?

Covers: coordinator/ranks/link_watch.py with a node's LinkService over a socket. Does not cover: echoes in frames
(test_framed_echoes.py), what it makes of echoes (tests/unit/test_link_watch.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from common.compute.device_speeds import DeviceSpeeds
from coordinator.ranks import link_watch
from coordinator.ranks.link_watch import LinkWatch
from coordinator.ranks.path_watch import PathWatch
from coordinator.ranks.round_series import RoundSeries
from coordinator.ranks.transports.echo_lane import EchoLane
from protos.shardmesh.v1 import links_pb2
from shardnode.listeners.link_service import LinkServicer
from tests.support.echo_channel import echo_channel
from tests.support.waiting import wait_until

SOON_SECONDS = 10.0


class HeldServicer(LinkServicer):
    """Answers echoes once it is let."""

    def __init__(self) -> None:
        super().__init__(lambda context: None, lambda is_wanted: DeviceSpeeds())
        self.count = 0
        self.goes_on = threading.Event()
        self.goes_on.set()

    def Echo(  # noqa: N802 - the name is the contract's
        self, request_iterator: Iterator[links_pb2.EchoRequest], context: grpc.ServicerContext
    ) -> Iterator[links_pb2.EchoResponse]:
        for response in super().Echo(request_iterator, context):
            self.count += 1
            self.goes_on.wait(SOON_SECONDS)
            yield response


@pytest.fixture
def servicer() -> HeldServicer:
    """Return a node's servicer."""
    return HeldServicer()


@pytest.fixture
def channel(servicer: HeldServicer) -> Iterator[grpc.Channel]:
    """Return a channel to a node that answers echoes."""
    with echo_channel(servicer) as made:
        yield made
        servicer.goes_on.set()


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> PathWatch:
    """Return a path whose sweeps the test decides about; looks come at once."""
    monkeypatch.setattr(link_watch, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(link_watch, "LOOK_SECONDS", 0.01)
    return PathWatch(["kitchen"], RoundSeries().path)


def test_a_way_is_measured_once_sweeps_go_on(channel: grpc.Channel, servicer: HeldServicer, path: PathWatch) -> None:
    """In the sizes of rounds; before the first sweep nothing is sent."""
    watch = LinkWatch([EchoLane("kitchen", channel)], path)
    try:
        looks = iter(range(20))
        wait_until(lambda: next(looks, None) is None, limit_seconds=SOON_SECONDS, what="some looks are over")
        assert servicer.count == 0
        path.message_bytes, path.swept_at = 4000, time.perf_counter()
        wait_until(lambda: len(path.ways[0].points) == 3, limit_seconds=SOON_SECONDS, what="all sizes are measured")
        assert [byte_count for byte_count, _ in path.ways[0].points] == [128, 8000, 131072]
        assert 0 < path.ways[0].round_trip_seconds < 1
    finally:
        watch.close()


def test_a_node_that_answers_no_echo_holds_nobody_up(
    channel: grpc.Channel, servicer: HeldServicer, path: PathWatch
) -> None:
    """The end of a model does not wait for it, and the way is what it was."""
    before = path.ways
    servicer.goes_on.clear()
    path.swept_at = time.perf_counter()
    watch = LinkWatch([EchoLane("kitchen", channel)], path)
    wait_until(lambda: servicer.count, limit_seconds=SOON_SECONDS, what="an echo is asked for")
    started = time.monotonic()
    watch.close()
    watch.close()
    assert time.monotonic() - started < 2.0
    assert path.ways == before
