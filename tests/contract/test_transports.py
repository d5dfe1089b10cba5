"""Does every ShardClient keep the seam's contract: order, typed errors, limits, an end that frees everything?

Covers: the direct socket, gRPC over a Unix socket and over TCP, each against a real node with a real slice.
Does not cover: what a session refuses (test_session_distrust.py), the direct transport's own ways
(test_direct_transport.py), processes that are killed (tests/e2e).
"""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest

from common.errors import (
    NodeLost,
    NodeTimeout,
    ProtocolError,
    ShapeError,
    ShardmeshError,
)
from common.weights.stored_numbers import Floats
from common.wire.rpc import MAX_MESSAGE_BYTES, channel_options
from common.wire.tensor_codec import decode_tensor
from coordinator.ranks.transports.framed import DirectShardClient
from coordinator.ranks.transports.grpc_stream import GrpcShardClient
from coordinator.ranks.transports.transport import ShardClient
from protos.shardmesh.v1 import shard_pb2
from shardnode.listeners.direct import MAX_CONNECTIONS
from shardnode.listeners.frames import PLACES
from shardnode.sessions.session import Session
from shardnode.work.slice_at_work import ShardNode
from tests.support.listening_nodes import NAME, SOON_SECONDS, ListeningNode, Transport, ask
from tests.support.session_messages import (
    FFN,
    close_sequence,
    open_sequence,
    open_session,
    random_rows,
    run_block,
)
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until


@pytest.fixture
def script(sliced: SlicedModel) -> list[shard_pb2.RoundsRequest]:
    """Return a session of every kind of request: a prefill, a decode step, a truncation, an end."""
    rows = random_rows(4, sliced.spec.hidden_size)
    return [
        open_session(1, sliced.identity),
        open_sequence(2),
        run_block(3, rows),
        run_block(4, rows, kind=FFN),
        run_block(7, rows[:1], segments=[(1, 4, 1)], sweep_id=1),
        run_block(8, rows[:2], segments=[(1, 2, 2)], sweep_id=2),
        close_sequence(9),
    ]


@pytest.fixture
def expected(sliced: SlicedModel, script: list[shard_pb2.RoundsRequest]) -> list[Floats]:
    """Return the partial sums of the script's rounds, computed without any transport."""
    node = ShardNode(sliced.node_config())
    try:
        session = Session(node)
        responses = [session.handle(request) for request in script]
        session.close()
        return partials(sliced, script, responses)
    finally:
        node.close()


def partials(
    sliced: SlicedModel, requests: list[shard_pb2.RoundsRequest], responses: list[shard_pb2.RoundsResponse]
) -> list[Floats]:
    """Return the partial sums among `responses`, every response checked to belong to its request."""
    assert [response.call_id for response in responses] == [request.call_id for request in requests]
    found = []
    for request, response in zip(requests, responses, strict=True):
        if request.HasField("run_block"):
            shape = (request.run_block.input.shape[0], sliced.spec.hidden_size)
            found.append(decode_tensor(response.block_result.partial, shape=shape))
    return found


def failure(client: ShardClient, request: shard_pb2.RoundsRequest) -> ShardmeshError:
    """Return the error that a request ends in, whether sending or collecting notices it."""
    with pytest.raises(ShardmeshError) as caught:
        ask(client, request)
    assert NAME in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def nothing_is_open(listening: ListeningNode) -> bool:
    """Say whether the node holds nothing for anybody."""
    stats = listening.node.stats()
    return stats.open_sequence_count == 0 and stats.kv_bytes == 0


def test_every_response_is_the_one_to_its_request(
    sliced: SlicedModel, listening: ListeningNode, script: list[shard_pb2.RoundsRequest], expected: list[Floats]
) -> None:
    """A transport adds nothing: the numbers are, bit for bit, those of a session without one."""
    client = listening.connect()
    got = partials(sliced, script, [ask(client, request) for request in script])
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_requests_that_are_sent_ahead_are_answered_in_order(
    sliced: SlicedModel, listening: ListeningNode, script: list[shard_pb2.RoundsRequest], expected: list[Floats]
) -> None:
    """Submitting does not wait for responses, and the oldest request is always answered first."""
    client = listening.connect()
    for request in script:
        client.submit(request.SerializeToString())
    got = partials(sliced, script, [client.collect().response for _ in script])
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_two_sessions_at_once_do_not_see_each_other(
    sliced: SlicedModel, listening: ListeningNode, script: list[shard_pb2.RoundsRequest], expected: list[Floats]
) -> None:
    """The same sequence id in two sessions is two sequences; rounds of both may take turns."""
    clients = [listening.connect(), listening.connect()]
    responses: list[list[shard_pb2.RoundsResponse]] = [[], []]
    for request in script:
        for client, collected in zip(clients, responses, strict=True):
            collected.append(ask(client, request))
        if request.change_sequences.opened:
            assert listening.node.stats().open_sequence_count == 2
    for collected in responses:
        got = partials(sliced, script, collected)
        assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_session_that_computes_does_not_hold_up_the_opening_of_another(
    sliced: SlicedModel, listening: ListeningNode
) -> None:
    """A second coordinator gets its handshake and its room while the first one's block is being computed."""
    first, second = listening.connect(), listening.connect()
    ask(first, open_session(1, sliced.identity))
    ask(first, open_sequence(2))
    with listening.node.lock:
        first.submit(run_block(3, random_rows(2, sliced.spec.hidden_size)).SerializeToString())
        ask(second, open_session(1, sliced.identity))
        assert not ask(second, open_sequence(2)).sequences_changed.refused
    assert first.collect().response.HasField("block_result")


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (open_sequence(3), ProtocolError),
        (run_block(3, np.zeros((1, 3), np.float32)), ShapeError),
    ],
    ids=["a sequence opened twice", "rows of another width"],
)
def test_a_refusal_arrives_as_its_own_class_and_names_the_node(
    sliced: SlicedModel, transport: Transport, request_: shard_pb2.RoundsRequest, kind: type[ShardmeshError]
) -> None:
    """What a session raises on the node is raised here, with the node's name and in one line."""
    with ListeningNode(sliced, transport, kv_budget_bytes=40_000) as listening:
        client = listening.connect()
        ask(client, open_session(1, sliced.identity))
        ask(client, open_sequence(2))
        assert type(failure(client, request_)) is kind
        wait_until(lambda: nothing_is_open(listening), limit_seconds=SOON_SECONDS, what="the session's room is free")


def test_after_a_failure_the_session_is_over_and_a_new_one_works(sliced: SlicedModel, listening: ListeningNode) -> None:
    """A failed session answers nothing more; the node itself goes on."""
    client = listening.connect()
    ask(client, open_session(1, sliced.identity))
    failure(client, open_session(2, sliced.identity))
    failure(client, open_sequence(3))
    client.close()
    assert ask(listening.connect(), open_session(1, sliced.identity)).HasField("session_opened")


def test_a_message_longer_than_allowed_is_refused_with_a_typed_error(
    sliced: SlicedModel, listening: ListeningNode
) -> None:
    """Nobody announces 64 MB and is waited for."""
    client = listening.connect()
    ask(client, open_session(1, sliced.identity))
    request = run_block(2, random_rows(1, 1))
    request.run_block.input.data = bytes(MAX_MESSAGE_BYTES + 1)
    failure(client, request)
    assert ask(listening.connect(), open_session(1, sliced.identity)).HasField("session_opened")


def test_a_node_that_is_gone_is_lost(sliced: SlicedModel, listening: ListeningNode) -> None:
    """When the node ends between two rounds, the next one ends in NodeLost, as does each after it."""
    client = listening.connect()
    ask(client, open_session(1, sliced.identity))
    listening.stop()
    assert type(failure(client, open_sequence(2))) is NodeLost
    assert type(failure(client, open_sequence(3))) is NodeLost


def test_a_node_that_does_not_answer_in_time_is_a_timeout(sliced: SlicedModel, listening: ListeningNode) -> None:
    """A block that takes longer than the round's limit ends in NodeTimeout, and closing does not wait for it."""
    client = listening.connect(silence_seconds=0.2, round_limit_seconds=0.2)
    ask(client, open_session(1, sliced.identity))
    ask(client, open_sequence(2))
    with listening.node.lock:
        assert type(failure(client, run_block(3, random_rows(1, sliced.spec.hidden_size)))) is NodeTimeout
        client.close()
    wait_until(lambda: nothing_is_open(listening), limit_seconds=SOON_SECONDS, what="the session's room is free")


def test_a_session_may_be_closed_twice_and_before_it_is_used(listening: ListeningNode) -> None:
    """Closing needs no state: nothing sent, already closed, node gone."""
    client = listening.connect()
    client.close()
    client.close()
    other = listening.connect()
    listening.stop()
    other.close()


def test_the_end_of_a_session_frees_its_sequences(sliced: SlicedModel, listening: ListeningNode) -> None:
    """Whoever hangs up without closing its sequences leaves nothing reserved."""
    client = listening.connect()
    ask(client, open_session(1, sliced.identity))
    for sequence_id in (1, 2, 3):
        ask(client, open_sequence(1 + sequence_id, sequence_id=sequence_id))
    stats = listening.node.stats()
    assert (stats.open_sequence_count, stats.kv_bytes) == (3, listening.node.kv_cache.reserved_bytes)
    assert stats.kv_bytes == 3 * listening.node.kv_cache.sequence_bytes(8)
    client.close()
    wait_until(lambda: nothing_is_open(listening), limit_seconds=SOON_SECONDS, what="the session's room is free")


def test_the_room_of_a_closed_sequence_can_be_had_again(sliced: SlicedModel, transport: Transport) -> None:
    """Within one session, closing a sequence makes room for the next; closing twice does no harm."""
    with ListeningNode(sliced, transport, kv_budget_bytes=40_000) as listening:
        client = listening.connect()
        ask(client, open_session(1, sliced.identity))
        for call_id in range(2, 22, 3):
            ask(client, open_sequence(call_id, position_capacity=30))
            ask(client, close_sequence(call_id + 1))
            ask(client, close_sequence(call_id + 2))
        assert nothing_is_open(listening)


def test_nobody_listening_is_a_lost_node(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A session with an address where nobody is ends in NodeLost that names the node, on both transports."""
    missing = tmp_path_factory.mktemp("s") / "nobody"
    with pytest.raises(NodeLost, match="node 0"):
        DirectShardClient(str(missing), NAME)
    with grpc.insecure_channel(f"unix:{missing}", options=channel_options()) as channel:
        client = GrpcShardClient(channel, NAME)
        assert type(failure(client, open_sequence(1))) is NodeLost
        client.close()


def test_clients_leave_no_thread_behind(sliced: SlicedModel, listening: ListeningNode) -> None:
    """Ten sessions, opened and closed, end with every thread that they began.

    gRPC's pool keeps its own; one that was there before, such as the end of another test's node, may end meanwhile.
    """
    ask(listening.connect(), open_session(1, sliced.identity))
    before = frozenset(threading.enumerate())
    for _ in range(10):
        client = listening.connect()
        ask(client, open_session(1, sliced.identity))
        client.close()

    def are_gone() -> bool:
        return all(thread in before or thread.name.startswith("rpc") for thread in threading.enumerate())

    wait_until(are_gone, limit_seconds=SOON_SECONDS, what="the sessions' threads end")


@pytest.mark.parametrize(("over", "most"), [("direct", MAX_CONNECTIONS), ("frames-tls", PLACES.connections)])
def test_a_session_that_is_one_too_many_is_lost_at_once(sliced: SlicedModel, over: Transport, most: int) -> None:
    """Nobody is kept waiting for a thread that there is not; when another session ends, there is room again."""
    with ListeningNode(sliced, over) as listening:
        clients = [listening.connect() for _ in range(most)]
        for client in clients:
            ask(client, open_session(1, sliced.identity))
        with pytest.raises(NodeLost):
            ask(listening.connect(), open_session(1, sliced.identity))
        clients[0].close()

        def has_room() -> bool:
            try:
                return ask(listening.connect(), open_session(1, sliced.identity)).HasField("session_opened")
            except NodeLost:
                return False

        wait_until(has_room, limit_seconds=SOON_SECONDS, what="there is room again")
