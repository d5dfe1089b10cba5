"""Does the port for rounds in frames let in its mesh's coordinator and nobody else, whatever others send to it?

Covers: strangers of every kind, connections that say nothing, what the log says of them, packed rounds that lie, the
choice between frames and gRPC. Does not cover: what every transport keeps (test_transports.py), what a session refuses
(test_session_distrust.py), draining (test_draining.py).
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from unittest import mock

import numpy as np
import pytest

from common.errors import NodeLost, NotTrusted, ProtocolError, ShapeError, ShardmeshError
from common.trust.certificates import COORDINATOR, OBSERVER
from common.trust.identity import Identity
from common.weights import slice_format
from common.wire.packed_round import NextBlock, pack_next, unpack_done
from common.wire.rpc import MAX_MESSAGE_BYTES
from coordinator.ranks.transports import connecting
from coordinator.ranks.transports.arrivals import Arrivals
from coordinator.ranks.transports.carriers import FRAMES, GRPC, OVER_GRPC, Carrier
from coordinator.ranks.transports.connecting import connect_nodes
from coordinator.ranks.transports.framed_tcp import FramedTcpClient, PlainLink
from coordinator.ranks.transports.transport import Arrived
from protos.shardmesh.v1 import shard_pb2
from shardnode.run import RunningNode
from tests.support.listening_nodes import NAME, SECURE, ListeningNode, ask
from tests.support.mesh_identities import MeshIdentities
from tests.support.session_messages import FFN, open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until

LIMIT_SECONDS = 20.0


@pytest.fixture(params=SECURE)
def node(sliced: SlicedModel, request: pytest.FixtureRequest) -> Iterator[ListeningNode]:
    """Return a node whose port speaks TLS, of each kind."""
    with ListeningNode(sliced, request.param) as made:
        yield made


def strangers(own: MeshIdentities) -> dict[str, Identity]:
    """Return who is not the coordinator of the mesh."""
    other = MeshIdentities()
    return {
        "another node": own.node("garage"),
        "an observer": own.identity(OBSERVER, "prometheus"),
        "another mesh's coordinator": MeshIdentities("cellar").coordinator(),
        "a coordinator of another authority of the same name": Identity(
            authority=own.authority.certificate, own=other.identity(COORDINATOR, "desk").own
        ),
    }


@pytest.mark.parametrize("who", strangers(MeshIdentities()))
def test_only_the_coordinator_of_the_mesh_is_let_in(node: ListeningNode, sliced: SlicedModel, who: str) -> None:
    """Others hear nothing but the end of the connection, and the coordinator is served all the same."""
    stranger = strangers(node.identities)[who]
    with pytest.raises(ShardmeshError, match=NAME.replace("(", r"\(").replace(")", r"\)")):
        ask(node.framed(Identity(authority=node.identities.authority.certificate, own=stranger.own)),
            open_session(1, sliced.identity))  # fmt: skip
    with closing(node.framed()) as client:
        assert ask(client, open_session(1, sliced.identity)).session_opened.takes_packed


def test_another_node_that_answers_there_is_not_sent_a_word(node: ListeningNode) -> None:
    """A node is its certificate, wherever it is reached."""
    node.identities.authority = MeshIdentities().authority
    with pytest.raises(NotTrusted, match="whoever answers at 127"):
        node.framed()


@pytest.mark.parametrize("words", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00", os.urandom(512), b""])
def test_who_speaks_no_tls_is_hung_up_on(node: ListeningNode, sliced: SlicedModel, words: bytes) -> None:
    """At once, or when a record that was begun is not completed in time; others notice nothing."""
    with socket.create_connection(("127.0.0.1", node.port)) as stranger, closing(node.framed()) as client:
        stranger.sendall(words)
        ask(client, open_session(1, sliced.identity))
        stranger.shutdown(socket.SHUT_WR)
        stranger.settimeout(LIMIT_SECONDS)
        try:
            while stranger.recv(4096):
                pass
        except ConnectionError:  # so it may be told as well
            pass
        assert ask(client, open_sequence(2)).HasField("sequences_changed")


def test_connections_that_say_nothing_take_nobodys_place(node: ListeningNode, sliced: SlicedModel) -> None:
    """A thousand of them, each let in by nobody: a session goes on meanwhile, and the next one begins."""
    with ExitStack() as closing_all:
        client = closing_all.enter_context(closing(node.framed()))
        ask(client, open_session(1, sliced.identity))
        for _ in range(1000):
            address, own = ("127.0.0.1", node.port), ("127.0.0.2", 0)  # others' tests need ports of 127.0.0.1
            closing_all.enter_context(socket.create_connection(address, LIMIT_SECONDS, own))
        ask(client, open_sequence(2))
        second = closing_all.enter_context(closing(node.framed()))
        assert ask(second, open_session(1, sliced.identity)).HasField("session_opened")


def test_a_message_that_is_too_long_or_cut_short_ends_its_session_in_words(
    node: ListeningNode, sliced: SlicedModel
) -> None:
    """Nothing is allocated for what is only announced."""
    client = node.framed()
    ask(client, open_session(1, sliced.identity))
    client._plain.sendall(client._link.sealed(struct.pack("<I", MAX_MESSAGE_BYTES + 1)))
    with pytest.raises(ProtocolError, match=r"announced; at most"):
        refused(client, b"\x08\x02")


def refused(client: FramedTcpClient, message: bytes) -> Arrived:
    """Send what is to be refused and return the answer."""
    client.submit(message)
    return client.collect()


def next_block(call_id: int, sweep_id: int, layer: int = 0, *, in_memory: bool = False) -> bytes:
    """Return the beginning of a packed round of the FFN."""
    return pack_next(NextBlock(call_id, sweep_id, slice_format.FFN, layer, in_memory, False))


def test_a_packed_round_computes_what_a_whole_one_does(node: ListeningNode, sliced: SlicedModel) -> None:
    """The rows are those that the last whole message of the sweep has named."""
    rows = random_rows(2, sliced.spec.hidden_size)
    with closing(node.framed()) as packed, closing(node.framed()) as whole:
        for client in (packed, whole):
            ask(client, open_session(1, sliced.identity))
            ask(client, open_sequence(2))
            ask(client, run_block(3, rows))
        packed.submit(next_block(4, 0) + rows.tobytes())
        answer = packed.collect()
        assert unpack_done(answer.message, NAME).call_id == 4
        expected = ask(whole, run_block(4, rows, kind=FFN)).block_result.partial.data
        assert answer.message[-rows.nbytes :] == expected
        assert np.frombuffer(expected, np.float32).any()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (next_block(4, 7), ProtocolError), (next_block(3, 0), ProtocolError), (next_block(4, 0)[:9], ShardmeshError),
        (next_block(4, 0) + bytes(7), ShapeError), (next_block(4, 0, in_memory=True), ShapeError),
        (next_block(4, 0, layer=1 << 30), ShardmeshError), (b"\0\x07" + next_block(4, 0)[2:], ShardmeshError),
        (b"\0\x01\xff" + next_block(4, 0)[3:], ShardmeshError), (b"\0" * 24, ShardmeshError), (b"\0", ShardmeshError),
    ],
    ids=["another sweep", "an old call", "cut short", "other bytes", "no memory", "no such layer", "no such kind",
         "flags", "zeros", "one zero"],
)  # fmt: skip
def test_a_packed_round_that_lies_ends_its_session_in_words(
    node: ListeningNode, sliced: SlicedModel, message: bytes, error: type[ShardmeshError]
) -> None:
    """And no other: the node goes on."""
    rows = random_rows(1, sliced.spec.hidden_size)
    body = rows.tobytes() if len(message) == 24 and error is not ShapeError else b""
    client = node.framed()
    ask(client, open_session(1, sliced.identity))
    ask(client, open_sequence(2))
    ask(client, run_block(3, rows))
    with pytest.raises(error, match=r"node 0 \(under test\)"):
        refused(client, message + body)
    wait_until(lambda: node.node.stats().kv_bytes == 0, limit_seconds=LIMIT_SECONDS, what="the end of its sequences")


def test_a_sweep_that_was_broken_into_has_no_next_block(node: ListeningNode, sliced: SlicedModel) -> None:
    """Sequences may have ended between: whose rows they are is to be said anew."""
    rows = random_rows(1, sliced.spec.hidden_size)
    client = node.framed()
    ask(client, open_session(1, sliced.identity))
    ask(client, open_sequence(2))
    ask(client, run_block(3, rows))
    ask(client, shard_pb2.RoundsRequest(call_id=4, change_sequences=shard_pb2.SequenceChanges(closed=[1])))
    with pytest.raises(ProtocolError, match="came before its first"):
        refused(client, next_block(5, 0) + rows.tobytes())


def test_an_answer_has_come_when_its_end_has() -> None:
    """Else what a slow link takes for the rest of it would be the coordinator's own time, and another node the last."""
    ours, theirs = socket.socketpair()
    with theirs, closing(FramedTcpClient(ours, PlainLink(ours), NAME, Arrivals())) as client:
        answer = shard_pb2.RoundsResponse(call_id=1, norms_loaded=shard_pb2.NormsLoaded()).SerializeToString()
        theirs.sendall(struct.pack("<I", len(answer)) + answer[:1])
        late: list[float] = []
        rest = threading.Timer(0.05, lambda: (late.append(time.perf_counter()), theirs.sendall(answer[1:])))
        rest.start()
        client.submit(b"\x08\x01")
        assert client.collect().at >= late[0]
        rest.join()


def carrier_of(node: RunningNode, rounds: str) -> Carrier:
    """Return what carries rounds to a node by hand."""
    (connected,) = connect_nodes([node.address], rounds=rounds)
    try:
        return connected.client.carrier
    finally:
        connected.close()


def test_rounds_go_in_frames_where_a_node_takes_them(sliced: SlicedModel, caplog: pytest.LogCaptureFixture) -> None:
    """By themselves; over gRPC where the user says so."""
    node = RunningNode(sliced.node_config(listen="127.0.0.1:0"))
    with closing(node):
        assert carrier_of(node, "auto") == carrier_of(node, "frames") == Carrier(FRAMES)
        assert carrier_of(node, "grpc") == OVER_GRPC
    assert "rounds over gRPC" not in caplog.text


def test_a_port_that_is_taken_leaves_rounds_to_grpc(sliced: SlicedModel, caplog: pytest.LogCaptureFixture) -> None:
    """Node and coordinator say so in the log; who asked for frames gets an error that says what to do."""
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with closing(RunningNode(sliced.node_config(listen="127.0.0.1:0", rounds_port=port))) as node:
            assert f"rounds over gRPC only port={port}" in caplog.text
            assert carrier_of(node, "auto") == Carrier(GRPC, is_fallback=True)
            assert "rounds over gRPC node=" in caplog.text
            with pytest.raises(NodeLost, match="give its shardnode a --rounds-port that is free"):
                carrier_of(node, "frames")


def test_a_port_that_is_not_let_through_leaves_rounds_to_grpc(
    sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And which port that was is known, for whoever asks why it is slow."""
    with closing(RunningNode(sliced.node_config(listen="127.0.0.1:0"))) as node:
        refused = NodeLost("node 0 takes no rounds there (no answer in time; is the port let through?)")
        monkeypatch.setattr(connecting, "connect_framed", mock.Mock(side_effect=refused))
        carrier = carrier_of(node, "auto")
    assert carrier.is_fallback
    assert carrier.port > 0


def test_the_port_of_a_member_is_known_and_that_of_others_is_free(sliced: SlicedModel) -> None:
    """A firewall has to know it; two nodes by hand on one machine must not meet."""
    by_hand = sliced.node_config(listen="127.0.0.1:50051")
    assert by_hand.rounds_place() == ("127.0.0.1", 0)
    member = sliced.node_config(listen="0.0.0.0:50051", coordinator="desk:29500")
    assert member.rounds_place() == ("0.0.0.0", 50061)
    assert sliced.node_config(listen="unix:/run/s.sock").rounds_place() is None
