"""Are ways measured over the lane that rounds take, and can nobody make a node do more than echo?

Covers: echoes in frames over real sockets, what a node refuses of them, a node of an earlier build, a peer that lies.
Does not cover: what is made of echoes (tests/unit/test_link_watch.py), echoes over gRPC (test_link_echoes.py).
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import grpc
import pytest

from common.compute.device_speeds import DeviceSpeeds
from common.errors import InputError, NodeFault, NodeLost, ProtocolError, ShardmeshError
from common.wire.packed_echo import MOST_BYTES, Echo, check_echoed, pack_echo, pack_echoed, unpack_echo
from common.wire.packed_round import DONE_BYTES
from common.wire.rpc import MAX_MESSAGE_BYTES
from coordinator.ranks import link_watch
from coordinator.ranks.link_watch import LinkWatch
from coordinator.ranks.path_watch import PathWatch
from coordinator.ranks.round_series import RoundSeries
from coordinator.ranks.transports.arrivals import Arrivals
from coordinator.ranks.transports.connecting import connect_nodes
from coordinator.ranks.transports.echo import EchoStream
from coordinator.ranks.transports.echo_lane import EchoLane
from coordinator.ranks.transports.framed_echoes import FramedEchoes
from coordinator.ranks.transports.framed_tcp import FramedTcpClient, PlainLink
from shardnode.listeners import frames
from shardnode.listeners.framed_echoes import MOST_ECHOES
from shardnode.listeners.link_service import LinkServicer
from shardnode.run import RunningNode
from tests.support.echo_channel import echo_channel
from tests.support.listening_nodes import NAME, ListeningNode, ask
from tests.support.session_messages import open_sequence, open_session
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until

LIMIT_SECONDS = 20.0


@pytest.fixture
def node(sliced: SlicedModel) -> Iterator[ListeningNode]:
    """Return a node whose port speaks TLS."""
    with ListeningNode(sliced, "frames-tls") as made:
        yield made


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> PathWatch:
    """Return a path with sweeps under way; looks come at once."""
    monkeypatch.setattr(link_watch, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(link_watch, "LOOK_SECONDS", 0.01)
    made = PathWatch(["kitchen"], RoundSeries().path)
    made.message_bytes, made.swept_at = 4000, time.perf_counter()
    return made


def no_channel() -> grpc.Channel:
    """Return a channel that nobody answers on."""
    return grpc.insecure_channel("unix:/nowhere")


def test_echoes_of_every_size_come_back_in_frames(node: ListeningNode) -> None:
    """Of the sizes that looks have, and of the most; beside a session they are in no session's way."""
    with FramedEchoes(node.framed(), LIMIT_SECONDS) as echoes:
        for byte_count in (64, 64, 4000, 65536, MOST_BYTES):
            assert 0 < echoes.round(byte_count) < LIMIT_SECONDS


def test_a_session_goes_on_while_its_way_is_measured(node: ListeningNode, sliced: SlicedModel) -> None:
    """Each has a connection of its own."""
    with closing(node.framed()) as client, FramedEchoes(node.framed(), LIMIT_SECONDS) as echoes:
        ask(client, open_session(1, sliced.identity))
        echoes.round(64)
        assert ask(client, open_sequence(2)).HasField("sequences_changed")
        echoes.round(64)


def test_ways_are_measured_in_frames_where_rounds_go_so(node: ListeningNode, path: PathWatch) -> None:
    """Nothing answers over gRPC here, and the way is known all the same, in the sizes of rounds."""
    with no_channel() as channel:
        watch = LinkWatch([EchoLane("kitchen", channel, node.framed)], path)
        try:
            wait_until(
                lambda: len(path.ways[0].points) == 3, limit_seconds=LIMIT_SECONDS, what="all sizes are measured"
            )
        finally:
            watch.close()
    assert [byte_count for byte_count, _ in path.ways[0].points] == [128, 8000, 131072]
    assert 0 < path.ways[0].round_trip_seconds < 1


@pytest.mark.parametrize(("rounds", "stream"), [("frames", FramedEchoes), ("grpc", EchoStream)])
def test_echoes_take_the_way_of_rounds(sliced: SlicedModel, rounds: str, stream: type[object]) -> None:
    """Over gRPC where rounds go over gRPC."""
    with closing(RunningNode(sliced.node_config(listen="127.0.0.1:0"))) as running:
        (connected,) = connect_nodes([running.address], rounds=rounds)
        with closing(connected), connected.echoes.stream(LIMIT_SECONDS) as echoes:
            assert isinstance(echoes, stream)


def test_a_node_of_an_earlier_build_is_measured_over_grpc(
    node: ListeningNode, path: PathWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes an echo for a round that nobody knows and says so; whoever looks asks it so no more."""
    monkeypatch.setattr(frames, "is_of_echoes", lambda reader: False)
    with echo_channel(LinkServicer(lambda context: None, lambda is_wanted: DeviceSpeeds())) as channel:
        lane = EchoLane("kitchen", channel, node.framed)
        watch = LinkWatch([lane], path)
        try:
            wait_until(lambda: path.ways[0].round_trip_seconds, limit_seconds=LIMIT_SECONDS, what="a way")
        finally:
            watch.close()
        assert not lane.is_framed


def test_a_node_that_is_gone_is_asked_in_frames_again() -> None:
    """That nobody answers does not tell how old a build is."""
    with no_channel() as channel:
        lane = EchoLane("kitchen", channel, lambda: pytest.fail("nobody asks here"))
        lane.failed(NodeLost("kitchen is gone"))
        assert lane.is_framed


def crafted(*, size: int = 64, kind: int = 3, flags: int = 0, reply: int = 64, nothing: int = 0) -> bytes:
    """Return an echo that says what it likes."""
    return struct.pack("<BBBxIqq", 0, kind, flags, reply, 1, nothing) + bytes(size - 24)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (crafted(reply=MOST_BYTES + 1), InputError), (crafted(reply=(1 << 32) - 1), InputError),
        (crafted(size=MOST_BYTES + 1), InputError), (crafted(flags=1), InputError), (crafted(nothing=7), InputError),
        (crafted()[:23], InputError), (crafted()[:2], InputError),
    ],
    ids=["much back", "most back", "much there", "flags", "no zeros", "cut short", "two bytes"],
)  # fmt: skip
def test_what_is_no_echo_is_refused_in_words(
    node: ListeningNode, sliced: SlicedModel, message: bytes, error: type[ShardmeshError]
) -> None:
    """As the first message and after others; the node goes on."""
    for is_first in (True, False):
        with closing(node.framed()) as client:
            if not is_first:
                client.submit(pack_echo(1, 64))
                client.collect()
            client.submit(message)
            with pytest.raises(error, match="echo"):
                client.collect()
    with closing(node.framed()) as client:
        assert ask(client, open_session(1, sliced.identity)).HasField("session_opened")


def test_a_session_does_not_begin_behind_an_echo_nor_an_echo_in_a_session(
    node: ListeningNode, sliced: SlicedModel
) -> None:
    """Who is there for echoes has no place for longer than they take."""
    with closing(node.framed()) as client:
        client.submit(pack_echo(1, 64))
        client.collect()
        with pytest.raises(InputError, match="no echo"):
            ask(client, open_session(2, sliced.identity))
    with closing(node.framed()) as client:
        ask(client, open_session(1, sliced.identity))
        client.submit(pack_echo(2, 64))
        with pytest.raises(InputError, match="nobody knows"):
            client.collect()


def test_one_connection_has_a_bounded_number_of_echoes(node: ListeningNode) -> None:
    """Who wants more has to shake hands again."""
    with FramedEchoes(node.framed(), LIMIT_SECONDS) as echoes:
        for _ in range(MOST_ECHOES):
            echoes.round(64)
        with pytest.raises(ShardmeshError, match=f"no more than {MOST_ECHOES} echoes|closed the connection"):
            echoes.round(64)


def test_an_echo_that_is_announced_too_long_is_not_waited_for(node: ListeningNode) -> None:
    """Nothing is allocated for what is only announced."""
    client = node.framed()
    client._plain.sendall(client._link.sealed(struct.pack("<I", MAX_MESSAGE_BYTES + 1) + crafted()))
    client.submit(b"")
    with pytest.raises(ProtocolError, match=r"announced; at most"):
        client.collect()


def test_measuring_ends_at_once_when_it_is_told_to(path: PathWatch) -> None:
    """A node that takes an echo and never answers holds up nobody who closes a model."""
    ours, theirs = socket.socketpair()
    asked = threading.Event()

    def connect() -> FramedTcpClient:
        asked.set()
        return FramedTcpClient(ours, PlainLink(ours), NAME, Arrivals())

    with theirs, no_channel() as channel:
        watch = LinkWatch([EchoLane("kitchen", channel, connect)], path)
        assert asked.wait(LIMIT_SECONDS)
        theirs.recv(1)
        started = time.monotonic()
        watch.close()
        watch.close()
        assert time.monotonic() - started < 2.0
    assert path.ways[0].round_trip_seconds == 0


def test_a_node_that_answers_something_else_is_believed_nothing() -> None:
    """Bytes of another number, another call, no answer at all."""
    echo = Echo(7, 500)
    check_echoed(pack_echoed(echo), echo, NAME)
    for lie in (pack_echoed(Echo(7, 501)), pack_echoed(Echo(8, 500)), bytes(3), b"\x07" * 500):
        with pytest.raises(NodeFault, match=r"answered an echo with something else|cannot be read"):
            check_echoed(lie, echo, NAME)


def test_an_echo_is_as_long_as_it_is_to_be() -> None:
    """A header is all of a short one; what is packed is what is read."""
    assert [len(pack_echo(1, count)) for count in (0, 24, 25, 4000)] == [24, 24, 25, 4000]
    assert unpack_echo(pack_echo(9, 4000)) == Echo(9, 4000)
    assert [len(pack_echoed(Echo(1, count))) for count in (0, 72, 73)] == [DONE_BYTES, DONE_BYTES, 73]
