"""Does a node whose blocks C answers without Python say what Python would, and leave to it what is not such a block?

Covers: common/native/serving.c behind real sockets, with C's TLS and none, over TCP and on one host: bits, positions,
counts, failures, signs of life, other sessions' turns, the node's end. Does not cover: the same loop in Python
(test_blocks_alike.py), how long a block takes (tests/bench/star.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest

from common.compute.matmul import kernels
from common.errors import InputError, NodeFault, NodeLost, ProtocolError, SliceMismatch
from common.trust.libssl import libssl
from common.weights.slice_format import ATTENTION, BLOCK_KINDS, FFN
from common.weights.stored_numbers import Floats
from common.weights.weight_memory import WeightMemory
from common.wire.packed_round import DONE_BYTES, NEXT_BYTES, BlockDone, NextBlock, pack_next, unpack_done
from coordinator.ranks.transports.transport import ShardClient
from protos.shardmesh.v1 import shard_pb2
from shardnode.listeners import framed_session
from shardnode.listeners.frames import FramesServer
from shardnode.sessions.session import Session
from tests.support import session_messages
from tests.support.listening_nodes import NAME, SOON_SECONDS, ListeningNode, Transport, ask
from tests.support.session_messages import open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until

IN_C: tuple[Transport, ...] = ("frames", "frames-tls", "direct")
SWEEP, FIRST_CALL = 5, 10
SEGMENTS = [(1, 0, 1), (2, 0, 2)]
SIGN_SECONDS, SILENCE_SECONDS, HELD_SECONDS = 0.02, 0.3, 0.7
pytestmark = pytest.mark.skipif(kernels.functions is None, reason="there are no kernels to call")


@pytest.fixture(params=IN_C)
def node(sliced: SlicedModel, request: pytest.FixtureRequest) -> Iterator[ListeningNode]:
    """Return a node whose weights stay in memory."""
    if request.param == "frames-tls" and libssl() is None:
        pytest.skip("this Python keeps its OpenSSL to itself")
    with ListeningNode(sliced, request.param, weights=WeightMemory(memory_window=0)) as made:
        yield made


def rows_of(sliced: SlicedModel, seed: int) -> Floats:
    """Return a sweep's rows."""
    return random_rows(sum(count for _, _, count in SEGMENTS), sliced.spec.hidden_size, seed=seed)


def wire_kind(kind: str) -> shard_pb2.BlockKind:
    """Return what a message calls a kind of block."""
    return session_messages.FFN if kind == FFN else session_messages.ATTENTION


def blocks_of(sliced: SlicedModel) -> list[tuple[str, int]]:
    """Return the blocks of a sweep in their order."""
    return [(kind, layer) for layer in range(sliced.spec.layer_count) for kind in BLOCK_KINDS]


def begin(client: ShardClient, sliced: SlicedModel) -> None:
    """Open a session and two sequences."""
    ask(client, open_session(1, sliced.identity))
    ask(client, open_sequence(2))
    ask(client, open_sequence(3, sequence_id=2))


def packed(
    client: ShardClient, call_id: int, block: tuple[str, int], rows: Floats, sweep_id: int = SWEEP
) -> tuple[BlockDone, Floats]:
    """Ask for the next block; return the answer and its part."""
    client.submit(pack_next(NextBlock(call_id, sweep_id, *block, False, False)) + rows.tobytes())
    message = client.collect().message
    done = unpack_done(message, NAME)
    assert done.call_id == call_id
    return done, np.frombuffer(message, np.float32, offset=DONE_BYTES).reshape(rows.shape)


def in_the_middle(node: ListeningNode, sliced: SlicedModel, **limits: float) -> ShardClient:
    """Return a session whose next message C looks at first: two blocks of a sweep are answered."""
    client = node.connect(**limits)
    begin(client, sliced)
    ask(client, run_block(4, rows_of(sliced, 0), kind=session_messages.FFN, sweep_id=SWEEP, segments=SEGMENTS))
    packed(client, FIRST_CALL, (FFN, 0), rows_of(sliced, 1))
    return client


def expected_of(node: ListeningNode, sliced: SlicedModel, sweeps: int) -> list[bytes]:
    """Return what a session in this process makes of all blocks of some sweeps."""
    session, found, call_id = Session(node.node), [], FIRST_CALL
    session.handle(open_session(1, sliced.identity))
    session.handle(open_sequence(2))
    session.handle(open_sequence(3, sequence_id=2))
    for sweep in range(sweeps):
        for kind, layer in blocks_of(sliced):
            call_id += 1
            request = run_block(
                call_id, rows_of(sliced, call_id), kind=wire_kind(kind), layer=layer, sweep_id=sweep,
                segments=[(1, sweep, 1), (2, 2 * sweep, 2)],
            )  # fmt: skip
            found.append(session.handle(request).block_result.partial.data)
    session.close()
    return found


def test_every_block_is_the_same_bits_and_is_counted(node: ListeningNode, sliced: SlicedModel) -> None:
    """Two sequences, several sweeps; most blocks are C's, and every total says the same as if none was."""
    sweeps, blocks = 3, blocks_of(sliced)
    expected, client = expected_of(node, sliced, sweeps), node.connect()
    begin(client, sliced)
    before, found, call_id, computed = node.node.compute_nanoseconds, [], FIRST_CALL, 0
    series = node.node._series.compute_seconds
    counted = {kind: sum(series[kind].counts) for kind in BLOCK_KINDS}
    with patch(
        "shardnode.work.executor.Executor.run", autospec=True, side_effect=node.node.executor.__class__.run
    ) as run:
        for sweep in range(sweeps):
            segments = [(1, sweep, 1), (2, 2 * sweep, 2)]
            for number, (kind, layer) in enumerate(blocks):
                call_id += 1
                rows = rows_of(sliced, call_id)
                if number:
                    done, part = packed(client, call_id, (kind, layer), rows, sweep)
                    assert done.ready_nanoseconds > 0
                    computed += done.compute_nanoseconds
                    found.append(part.tobytes())
                    continue
                request = run_block(call_id, rows, kind=wire_kind(kind), layer=layer, sweep_id=sweep, segments=segments)
                result = ask(client, request).block_result
                computed += result.compute_nanoseconds
                found.append(result.partial.data)
    assert found == expected
    assert run.call_count == sweeps, "but the first of a sweep"
    assert node.node.compute_nanoseconds - before == computed
    assert {kind: sum(series[kind].counts) - counted[kind] for kind in BLOCK_KINDS} == dict.fromkeys(
        BLOCK_KINDS, sweeps * sliced.spec.layer_count
    )


def test_what_is_received_and_sent_is_counted(node: ListeningNode, sliced: SlicedModel) -> None:
    """Message for message, as Python counts them."""
    client, rows = in_the_middle(node, sliced), rows_of(sliced, 2)
    server = node._server
    assert not isinstance(server, str)
    series = server._series  # type: ignore[union-attr]  # these servers have one
    before = series._now()
    for number in range(3):
        packed(client, FIRST_CALL + 1 + number, (FFN, 0), rows)
    now = series._now()
    assert now.rounds - before.rounds == 3
    assert now.received_bytes - before.received_bytes == 3 * (NEXT_BYTES + rows.nbytes)
    assert now.sent_bytes - before.sent_bytes == 3 * (DONE_BYTES + rows.nbytes)


@pytest.mark.parametrize(
    ("odd", "error"),
    [("call", ProtocolError), ("sweep", ProtocolError), ("layer", InputError), ("position", ProtocolError)],
)
def test_what_is_not_the_next_block_is_refused_in_words(
    node: ListeningNode, sliced: SlicedModel, odd: str, error: type[Exception]
) -> None:
    """A call that was there before, a sweep that has not begun, a layer that is none, rows that left some out."""
    client, rows = in_the_middle(node, sliced), rows_of(sliced, 2)
    call_id, sweep_id, layer = FIRST_CALL + 2, SWEEP, 0
    packed(client, FIRST_CALL + 1, (FFN, 0), rows)
    if odd == "position":
        later = [(1, 1, 1), (2, 2, 2)]
        ask(client, run_block(20, rows, kind=session_messages.FFN, sweep_id=SWEEP + 1, segments=later))
        call_id, sweep_id = 30, SWEEP + 1
        for number in range(2):
            packed(client, 21 + number, (FFN, 0), rows, sweep_id)
    elif odd == "call":
        call_id = FIRST_CALL + 1
    elif odd == "sweep":
        sweep_id = SWEEP + 1
    else:
        layer = sliced.spec.layer_count
    with pytest.raises(error):
        packed(client, call_id, (ATTENTION, layer), rows, sweep_id)


def test_a_block_that_kernels_refuse_ends_the_session_in_words(node: ListeningNode, sliced: SlicedModel) -> None:
    """And the node goes on with others."""
    client, rows = in_the_middle(node, sliced), rows_of(sliced, 2)
    block = node.node.executor._blocks._ready[FFN, 0].described
    tile = block.ffn_tiles[0]
    depth, tile.down.depth = tile.down.depth, 1
    with pytest.raises(NodeFault, match="refuse a tile"):
        packed(client, FIRST_CALL + 1, (FFN, 0), rows)
    tile.down.depth = depth
    in_the_middle(node, sliced)


def test_other_messages_come_between_blocks(node: ListeningNode, sliced: SlicedModel) -> None:
    """One of protobuf, one that asks how long it took, one of another length: each is answered for what it is."""
    client, rows = in_the_middle(node, sliced), rows_of(sliced, 2)
    _, part = packed(client, FIRST_CALL + 1, (FFN, 0), rows)
    client.submit(pack_next(NextBlock(FIRST_CALL + 2, SWEEP, FFN, 0, False, True)) + rows.tobytes())
    asked = client.collect().message
    assert unpack_done(asked, NAME).handling_nanoseconds > 0
    assert asked[DONE_BYTES:] == part.tobytes()
    assert np.array_equal(packed(client, FIRST_CALL + 3, (FFN, 0), rows)[1], part)
    assert ask(client, open_sequence(FIRST_CALL + 4, sequence_id=7)).HasField("sequences_changed")
    again = run_block(FIRST_CALL + 5, rows[:1], kind=session_messages.FFN, sweep_id=SWEEP + 1)
    assert ask(client, again).block_result.partial.data == part[:1].tobytes()
    for number in range(3):
        one = packed(client, FIRST_CALL + 6 + number, (FFN, 0), rows[:1], SWEEP + 1)[1]
        assert np.array_equal(one, part[:1])


def test_a_block_that_waits_for_its_turn_says_so_and_shows_signs_of_life(
    sliced: SlicedModel, node: ListeningNode
) -> None:
    """Another session computes for longer than a coordinator bears silence; then the answer says how long that was."""
    with patch.object(framed_session, "SIGN_OF_LIFE_SECONDS", SIGN_SECONDS):
        client = in_the_middle(node, sliced, silence_seconds=SILENCE_SECONDS)
        answers: list[BlockDone] = []
        rows = rows_of(sliced, 2)
        held = threading.Event()
        asking = threading.Thread(target=lambda: answers.append(packed(client, FIRST_CALL + 1, (FFN, 0), rows)[0]))
        with node.node.lock:
            asking.start()
            threading.Timer(HELD_SECONDS, held.set).start()
            wait_until(held.is_set, limit_seconds=SOON_SECONDS, what="the other one's turn is over")
            assert not answers
        asking.join()
    assert answers[0].queue_nanoseconds >= SILENCE_SECONDS * 1e9
    assert node.node.queue_nanoseconds == answers[0].queue_nanoseconds
    packed(client, FIRST_CALL + 2, (FFN, 0), rows)


def test_two_sessions_take_turns(node: ListeningNode, sliced: SlicedModel) -> None:
    """Each has its own sequences and its own rows."""
    clients = [in_the_middle(node, sliced) for _ in range(2)]
    found: list[list[bytes]] = [[], []]

    def run(number: int) -> None:
        for call_id in range(FIRST_CALL + 1, FIRST_CALL + 40):
            block = (BLOCK_KINDS[call_id % 2], 0)
            found[number].append(packed(clients[number], call_id, block, rows_of(sliced, call_id))[1].tobytes())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_SECONDS)
    assert found[0] == found[1]
    assert len(found[0]) == 39


def test_a_node_that_serves_another_slice_says_so(node: ListeningNode, sliced: SlicedModel) -> None:
    """Its weights are gone, and C knows of none."""
    client = in_the_middle(node, sliced)
    packed(client, FIRST_CALL + 1, (FFN, 0), rows_of(sliced, 2))
    node.node.close()
    with pytest.raises(SliceMismatch):
        packed(client, FIRST_CALL + 2, (FFN, 0), rows_of(sliced, 2))


def test_a_node_that_ends_says_so_among_blocks(node: ListeningNode, sliced: SlicedModel) -> None:
    """What an answer needs goes on; once that took too long, the next message hears why."""
    server = node._server
    if not isinstance(server, FramesServer):
        pytest.skip("nobody drains what one host has to itself")
    client, rows = in_the_middle(node, sliced), rows_of(sliced, 2)
    packed(client, FIRST_CALL + 1, (FFN, 0), rows)
    assert server._live.begin_nothing() == 1
    packed(client, FIRST_CALL + 2, (FFN, 0), rows)
    server._live.cut = NodeLost("it was told to end")
    with pytest.raises(NodeLost, match="told to end"):
        packed(client, FIRST_CALL + 3, (FFN, 0), rows)
