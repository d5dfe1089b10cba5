"""Does a node that answers block after block without looking twice still see what is another, and fail in words?

Covers: the loop of blocks that are like the ones before them (shardnode/listeners/framed_session.py) over real sockets,
with C's TLS, Python's and none, of weights that go through a window. Does not cover: weights in memory, where the loop
is C's (test_blocks_in_c.py), what a first block is refused for (test_session_distrust.py), how long one takes
(tests/bench/star.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest

from common.errors import NodeLost, ProtocolError, SliceCorrupt, SliceMismatch
from common.weights.slice_format import FFN
from common.weights.stored_numbers import Floats
from common.wire.packed_round import DONE_BYTES, NextBlock, pack_next, unpack_done
from coordinator.ranks.transports.transport import ShardClient
from shardnode.listeners.frames import FramesServer
from shardnode.sessions.live_sessions import LiveSessions
from shardnode.sessions.quick_blocks import QuickBlocks
from shardnode.work.executor import Executor
from tests.support import session_messages
from tests.support.listening_nodes import FRAMED, NAME, ListeningNode, ask
from tests.support.session_messages import open_sequence, open_session, run_block
from tests.support.sliced_models import SlicedModel

BLOCKS = 6


@pytest.fixture(params=FRAMED)
def node(sliced: SlicedModel, request: pytest.FixtureRequest) -> Iterator[ListeningNode]:
    """Return a node that takes frames."""
    with ListeningNode(sliced, request.param) as made:
        yield made


def rows_of(sliced: SlicedModel) -> Floats:
    """Return one row."""
    return np.linspace(-1, 1, sliced.identity.spec.hidden_size, dtype=np.float32)[np.newaxis]


def begun(node: ListeningNode, sliced: SlicedModel) -> ShardClient:
    """Return a session in the middle of a sweep."""
    client = node.connect()
    ask(client, open_session(1, sliced.identity))
    ask(client, open_sequence(2))
    ask(client, run_block(3, rows_of(sliced), kind=session_messages.FFN, sweep_id=5))
    return client


def answer(client: ShardClient, call_id: int, rows: Floats, layer: int = 0, sweep_id: int = 5) -> Floats:
    """Return what the next block's answer is."""
    client.submit(pack_next(NextBlock(call_id, sweep_id, FFN, layer, False, False)) + rows.tobytes())
    message = client.collect().message
    assert unpack_done(message, NAME).call_id == call_id
    return np.frombuffer(message, np.float32, offset=DONE_BYTES).reshape(rows.shape)


def test_blocks_alike_are_answered_each_for_its_own_rows(node: ListeningNode, sliced: SlicedModel) -> None:
    """The same bits as one by one; a message of another length, and one that is packed no more, come between."""
    client, rows = begun(node, sliced), rows_of(sliced)
    alike: list[bool] = []
    begins = QuickBlocks.begins
    with patch.object(QuickBlocks, "begins", lambda own, message: alike.append(begins(own, message)) or alike[-1]):
        found = [answer(client, 4 + place, rows * (1 + place % 2)) for place in range(BLOCKS)]
        assert ask(client, open_sequence(20, sequence_id=7)).HasField("sequences_changed")
    assert alike.count(True) >= BLOCKS - 2 or not any(alike), "but where C takes no part"
    for place, part in enumerate(found):
        assert np.array_equal(part, found[place % 2])
    assert not np.array_equal(found[0], found[1])
    again = ask(client, run_block(21, rows, kind=session_messages.FFN, sweep_id=6))
    assert again.HasField("block_result")


@pytest.mark.parametrize(("odd", "error"), [("call", ProtocolError), ("sweep", ProtocolError)])
def test_what_is_not_the_next_block_is_refused_in_words(
    node: ListeningNode, sliced: SlicedModel, odd: str, error: type[Exception]
) -> None:
    """After some that were: a call that was there before, a sweep that has not begun."""
    client, rows = begun(node, sliced), rows_of(sliced)
    for place in range(3):
        answer(client, 4 + place, rows)
    with pytest.raises(error):
        answer(client, 6 if odd == "call" else 7, rows, sweep_id=5 if odd == "call" else 9)


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_block_that_fails_among_others_ends_the_session_in_words(
    node: ListeningNode, sliced: SlicedModel, is_closed: bool
) -> None:
    """Its reason, or that the node serves another slice now, which is why."""
    client, rows = begun(node, sliced), rows_of(sliced)
    for place in range(3):
        answer(client, 4 + place, rows)

    def fail(executor: Executor, *arguments: object) -> None:
        node.node.is_closed = is_closed
        raise SliceCorrupt("a tile is not what it was")

    with patch.object(Executor, "run", fail), pytest.raises(SliceMismatch if is_closed else SliceCorrupt):
        answer(client, 7, rows)
    node.node.is_closed = False


def test_a_session_that_is_cut_among_blocks_hears_why(node: ListeningNode, sliced: SlicedModel) -> None:
    """The next message is answered with it, whatever it asks."""
    client, rows = begun(node, sliced), rows_of(sliced)
    for place in range(3):
        answer(client, 4 + place, rows)
    with patch.object(LiveSessions, "is_usual", False):
        answer(client, 7, rows)
        answer(client, 8, rows)
    server = node._server
    assert isinstance(server, FramesServer)
    server._live.cut = NodeLost("it was told to end")
    server._live.must_look.value = 1
    with pytest.raises(NodeLost, match="told to end"):
        answer(client, 9, rows)
