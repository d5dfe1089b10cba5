"""Does the direct transport keep its own promises: frames, signs of life, sockets that belong to one node?

Covers: shardnode/listeners/direct.py and coordinator/ranks/transports/framed.py where they differ from gRPC.
Does not cover: what every transport does (test_transports.py).
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

import shardnode.listeners.framed_session
from common.errors import AddressInUse, InputError, NodeFault, NodeLost, NodeTimeout
from common.wire.framing import FrameReader, send_frame
from common.wire.rpc import MAX_MESSAGE_BYTES
from coordinator.ranks.transports.framed import DirectShardClient
from coordinator.ranks.transports.transport import whole_response
from protos.shardmesh.v1 import shard_pb2
from shardnode.listeners.direct import DirectServer
from tests.support.listening_nodes import NAME, ListeningNode, ask
from tests.support.session_messages import open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import SlicedModel


def test_a_direct_node_that_says_it_is_working_is_not_lost(
    sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signs of life come while a block is computed, with its call id and without a body, and the client passes them."""
    monkeypatch.setattr(shardnode.listeners.framed_session, "SIGN_OF_LIFE_SECONDS", 0.02)
    with ListeningNode(sliced, "direct") as listening:
        client = listening.connect()
        assert isinstance(client, DirectShardClient)
        ask(client, open_session(1, sliced.identity))
        ask(client, open_sequence(2))
        with listening.node.lock:
            client.submit(run_block(3, random_rows(1, sliced.spec.hidden_size)).SerializeToString())
            for _ in range(2):
                sign = whole_response(client.receive(0.0))
                assert (sign.call_id, sign.WhichOneof("body")) == (3, None)
        assert client.collect().response.HasField("block_result")


def test_a_direct_node_that_says_it_is_working_for_too_long_is_a_timeout(
    sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signs of life do not buy more than the round's limit."""
    monkeypatch.setattr(shardnode.listeners.framed_session, "SIGN_OF_LIFE_SECONDS", 0.02)
    with ListeningNode(sliced, "direct") as listening:
        client = listening.connect(silence_seconds=5, round_limit_seconds=0.1)
        ask(client, open_session(1, sliced.identity))
        ask(client, open_sequence(2))
        with listening.node.lock:
            client.submit(run_block(3, random_rows(1, sliced.spec.hidden_size)).SerializeToString())
            with pytest.raises(NodeTimeout, match=r"node 0.* more than 0\.1 s"):
                client.collect()


def test_a_direct_peer_that_stops_inside_a_message_is_lost(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Half a message is no answer."""
    path = str(tmp_path_factory.mktemp("s") / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        client = DirectShardClient(path, NAME)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"\x10\0\0\0half")
        with pytest.raises(NodeLost, match="inside a message"):
            client.collect()
        client.close()


def test_frames_carry_the_direct_protocol_as_documented(sliced: SlicedModel) -> None:
    """A peer written from the .proto file alone can talk: four bytes of length, little-endian, then the message."""
    with ListeningNode(sliced, "direct") as listening, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(listening.socket_path)
        send_frame(connection, open_session(1, sliced.identity).SerializeToString())
        frame = FrameReader(connection, MAX_MESSAGE_BYTES).receive()
        assert frame is not None
        assert shard_pb2.RoundsResponse.FromString(bytes(frame)).session_opened.thread_count == 1


def test_the_socket_is_for_its_owner_only_and_goes_with_the_node(sliced: SlicedModel) -> None:
    """Whoever may write to the socket sees the conversation."""
    with ListeningNode(sliced, "direct") as listening:
        assert stat.S_IMODE(os.stat(listening.socket_path).st_mode) == 0o600
        listening.stop()
        assert not os.path.exists(listening.socket_path)


def test_a_socket_that_a_killed_node_left_is_taken_over(
    sliced: SlicedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After kill -9 the path exists and nobody answers on it; the next node starts without hand repair."""
    path = str(tmp_path_factory.mktemp("s") / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with ListeningNode(sliced, "grpc-unix") as listening:
        server = DirectServer(listening.node, path)
        client = DirectShardClient(path, NAME)
        ask(client, open_session(1, sliced.identity))
        client.close()
        server.close()


def test_a_socket_that_somebody_answers_on_is_refused(sliced: SlicedModel) -> None:
    """Two nodes never share a path, and the first one goes on."""
    with ListeningNode(sliced, "direct") as listening:
        with pytest.raises(AddressInUse, match="--listen"):
            DirectServer(listening.node, listening.socket_path)
        ask(listening.connect(), open_session(1, sliced.identity))


def test_a_file_in_the_way_is_neither_used_nor_removed(sliced: SlicedModel, tmp_path: Path) -> None:
    """A path that holds something else than a socket is refused."""
    (tmp_path / "notes").write_text("mine")
    with ListeningNode(sliced, "grpc-unix") as listening:
        with pytest.raises(AddressInUse):
            DirectServer(listening.node, str(tmp_path / "notes"))
        with pytest.raises(InputError, match="--listen"):
            DirectServer(listening.node, str(tmp_path / ("long" * 40)))
    assert (tmp_path / "notes").read_text() == "mine"


def test_an_answer_that_is_no_message_is_the_nodes_fault(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A frame that cannot be read ends in NodeFault, one of an absurd length in NodeLost; both name the node."""
    path = str(tmp_path_factory.mktemp("s") / "s")
    for answer, kind in ((b"\3\0\0\0\xff\xff\xff", NodeFault), (b"\xff\xff\xff\xff", NodeLost)):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            client = DirectShardClient(path, NAME)
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)
                with pytest.raises(kind, match="node 0"):
                    client.collect()
            client.close()
        os.unlink(path)
