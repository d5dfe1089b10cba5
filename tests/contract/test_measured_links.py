"""Are links measured for a plan over what rounds will take: in frames where a node has a port for them, else over gRPC?

Covers: one node of a mesh over real TLS, without a slice as before a first load; ports that are shut, nodes that have
none, a look that says what is to carry rounds. Does not cover: echoes themselves (test_framed_echoes.py), what plans
make of links (tests/property/test_planning.py).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from unittest import mock

import pytest

from common.errors import NodeLost, NotTrusted
from coordinator.membership.reach import MeshAccess, is_alive, owner_access
from coordinator.planning import links
from coordinator.planning.links import LARGE_BYTES, MeshEchoes
from coordinator.planning.prediction import Workload
from coordinator.planning.survey import survey
from coordinator.ranks.transports.carriers import AUTO, FRAMES, GRPC
from coordinator.ranks.transports.connecting import Reaching
from coordinator.ranks.transports.echo import Echoes, EchoStream
from coordinator.ranks.transports.echo_lane import EchoLane
from coordinator.ranks.transports.echo_rounds import EchoRounds
from coordinator.ranks.transports.exchange import Group
from coordinator.ranks.transports.framed_echoes import FramedEchoes
from shardnode.listeners import frames
from shardnode.listeners.link_service import LinkServicer
from tests.support.listening_nodes import ListeningNode
from tests.support.shipped_slices import NAME, ShippingMesh
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until

LIMIT_SECONDS = 60.0
BYTES = 2304
Streams = list[type[object]]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshAccess]:
    """Return the nodes of a mesh as its owner knows them: one, without a slice."""
    with ShippingMesh(tmp_path_factory.mktemp("mesh")) as made:
        access = owner_access(made.state_directory)
        wait_until(lambda: any(map(is_alive, access.nodes())), limit_seconds=LIMIT_SECONDS, what="a first heartbeat")
        yield access


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Return what links are measured over, by kind of stream; grows."""
    found: Streams = []
    stream = EchoLane.stream

    def noted(lane: EchoLane, limit_seconds: float) -> Echoes:
        made = stream(lane, limit_seconds)
        found.append(type(made))
        return made

    monkeypatch.setattr(EchoLane, "stream", noted)
    return found


def measured(mesh: MeshAccess, rounds: str = AUTO, told: Callable[[str], None] = lambda text: None) -> None:
    """Measure a node's link and rounds with it, which are no nonsense."""
    with MeshEchoes(mesh, [NAME], told, rounds) as echoes:
        (link,) = echoes.links().values()
        assert 0 < link.round_trip_seconds < 1
        assert link.bytes_per_second > 0
        assert 0 < echoes.round_seconds(BYTES) < LIMIT_SECONDS
        assert 0 < echoes.round_seconds(LARGE_BYTES) < LIMIT_SECONDS


def test_a_link_is_measured_in_frames_though_no_session_can_be_open(mesh: MeshAccess, streams: Streams) -> None:
    """A node tells its port with an echo: before a first load it has no stats."""
    said: list[str] = []
    measured(mesh, told=said.append)
    assert streams == [FramedEchoes] * 3
    assert said == []


def test_links_are_measured_over_what_is_to_carry_rounds(mesh: MeshAccess, streams: Streams) -> None:
    """Whoever chooses gRPC gets a plan for it."""
    measured(mesh, GRPC)
    assert streams == [EchoStream] * 3


def test_a_node_that_tells_no_port_is_measured_over_grpc(mesh: MeshAccess, streams: Streams) -> None:
    """It is of an earlier build, or has none; where frames were asked for there is nothing to measure."""
    reply = LinkServicer._reply

    def of_before(servicer: LinkServicer, request: object) -> object:
        response = reply(servicer, request)  # type: ignore[arg-type]
        response.ClearField("rounds_port")
        return response

    with mock.patch.object(LinkServicer, "_reply", of_before):
        measured(mesh)
        assert streams == [EchoStream] * 3
        with pytest.raises(NodeLost, match="takes no rounds in frames"):
            measured(mesh, FRAMES)


def test_a_port_that_is_shut_is_said_and_the_link_measured_as_rounds_would_go(
    mesh: MeshAccess, streams: Streams
) -> None:
    """Over gRPC, and once is enough to know it; not where frames were asked for."""
    said: list[str] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        place = f"127.0.0.1:{taken.getsockname()[1]}", None
        with mock.patch.object(Reaching, "_place", return_value=place):
            measured(mesh, told=said.append)
            with pytest.raises(NodeLost, match="takes no rounds on"):
                measured(mesh, FRAMES)
    assert streams == [EchoStream] * 3
    (sentence,) = said
    assert sentence.startswith(f"measuring over gRPC, as rounds would go: {NAME} takes no rounds on")


def test_a_node_that_stops_echoing_is_measured_anew(
    mesh: MeshAccess, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node of an earlier build takes an echo for a session's first message."""
    monkeypatch.setattr(frames, "is_of_echoes", lambda reader: False)
    measured(mesh)
    assert streams == [FramedEchoes] + [EchoStream] * 3


def test_another_one_who_answers_at_the_port_is_not_gone_around(
    mesh: MeshAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is not the node is no reason for gRPC."""

    def refuse(lane: EchoLane, limit_seconds: float) -> Echoes:
        raise NotTrusted("another one")

    monkeypatch.setattr(links.EchoLane, "stream", refuse)
    with pytest.raises(NotTrusted):
        measured(mesh)


def test_a_survey_measures_in_frames(mesh: MeshAccess, streams: Streams, tmp_path: Path) -> None:
    """Which is what plans, the doctor and a measured load are made with."""
    survey(mesh, mesh.alive(), tmp_path, 256, Workload(), lambda text: None, measure_devices=False)
    assert streams == [FramedEchoes] * 3


@pytest.mark.parametrize("transport", ["frames", "frames-tls", "frames-python-tls"])
def test_a_round_of_echoes_goes_to_several_nodes_as_rounds_do(
    sliced: SlicedModel, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one call of C where it is short, however encrypted; one after another where it is long."""
    sent: list[int] = []
    send = Group.send
    monkeypatch.setattr(Group, "send", lambda group, message: sent.append(len(message)) or send(group, message))
    with ExitStack() as opened:
        nodes = [opened.enter_context(ListeningNode(sliced, transport)) for _ in range(2)]  # type: ignore[arg-type]
        streams = [opened.enter_context(FramedEchoes(node.framed(), LIMIT_SECONDS)) for node in nodes]
        rounds = EchoRounds(streams)
        for byte_count in (BYTES, LARGE_BYTES, BYTES):
            assert 0 < rounds.seconds(byte_count) < LIMIT_SECONDS
    assert sent == [BYTES, BYTES]


def test_a_round_of_echoes_reaches_nodes_of_both_kinds(mesh: MeshAccess) -> None:
    """Where one has no port for rounds the others keep theirs."""
    with MeshEchoes(mesh, [NAME], lambda text: None) as echoes, closing(mesh.reach(NAME)) as channel:
        (lane,) = echoes._lanes
        with lane.stream(LIMIT_SECONDS) as one, EchoStream(channel, NAME, LIMIT_SECONDS) as other:
            assert isinstance(one, FramedEchoes)
            assert 0 < EchoRounds([one, other]).seconds(BYTES) < LIMIT_SECONDS
