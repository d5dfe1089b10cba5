"""Does a node say how long it has waited for what, where it is asked, and do its parts fit into its answer's time?

Covers: handling, queue, waiting for a core and for weights, of a block and of layers; a coordinator that does not ask.
Does not cover: what is made of it (tests/property/test_critical_path.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from common.weights.weight_memory import WeightMemory
from protos.shardmesh.v1 import shard_pb2
from shardnode.sessions.session import Session
from shardnode.work.slice_at_work import ShardNode
from tests.support.session_messages import (
    FFN,
    load_norms,
    open_sequence,
    open_session,
    random_rows,
    run_block,
    run_layers,
)
from tests.support.sliced_models import SlicedModel
from tests.support.waiting import wait_until

HELD_SECONDS = 0.05


@pytest.fixture
def node(sliced: SlicedModel) -> Iterator[ShardNode]:
    """Return a node that streams its weights."""
    made = ShardNode(sliced.node_config(weights=WeightMemory(memory_window=2)))
    yield made
    made.close()


@pytest.fixture
def session(sliced: SlicedModel, node: ShardNode) -> Iterator[Session]:
    """Return a session with an open sequence."""
    made = Session(node)
    made.handle(open_session(1, sliced.identity))
    made.handle(open_sequence(2))
    yield made
    made.close()


def asked(request: shard_pb2.RoundsRequest) -> shard_pb2.RoundsRequest:
    """Have a round tell its waits."""
    (request.run_block if request.HasField("run_block") else request.run_layers).tells_waits = True
    return request


def check(result: shard_pb2.BlockResult | shard_pb2.LayersResult) -> None:
    """Check that what was waited for is part of the time that the answer took."""
    parts = (result.tile_wait_nanoseconds, result.queue_nanoseconds, result.core_wait_nanoseconds)
    assert min(parts) >= 0 < result.handling_nanoseconds
    assert sum(parts) <= result.handling_nanoseconds
    assert result.compute_nanoseconds + result.tile_wait_nanoseconds <= result.handling_nanoseconds


def test_a_block_tells_its_waits_where_it_is_asked(sliced: SlicedModel, session: Session) -> None:
    """They fit into the time from the message to the answer."""
    check(session.handle(asked(run_block(3, random_rows(4, sliced.spec.hidden_size)))).block_result)


def test_layers_tell_their_waits_where_they_are_asked(sliced: SlicedModel, session: Session) -> None:
    """As blocks do."""
    session.handle(load_norms(3, sliced.residual()))
    check(session.handle(asked(run_layers(4, random_rows(4, sliced.spec.hidden_size)))).layers_result)


def test_who_does_not_ask_is_told_what_it_always_was(sliced: SlicedModel, session: Session) -> None:
    """Kernels and waits for weights; nothing that costs a token its hundredth."""
    result = session.handle(run_block(3, random_rows(4, sliced.spec.hidden_size))).block_result
    assert result.compute_nanoseconds > 0
    assert (result.handling_nanoseconds, result.core_wait_nanoseconds, result.starved_nanoseconds) == (0, 0, 0)


def test_a_block_that_waits_for_another_session_says_so(sliced: SlicedModel, node: ShardNode, session: Session) -> None:
    """The time is the queue's, in the answer and in the series."""
    results = []
    request = asked(run_block(3, random_rows(4, sliced.spec.hidden_size), kind=FFN))
    node.lock.acquire()
    thread = threading.Thread(target=lambda: results.append(session.handle(request).block_result))
    thread.start()
    held = threading.Event()
    threading.Timer(HELD_SECONDS, held.set).start()
    wait_until(held.is_set, limit_seconds=10, what="the other one's turn is over")
    node.lock.release()
    thread.join()
    check(results[0])
    assert results[0].queue_nanoseconds > 0
    assert node.queue_nanoseconds == results[0].queue_nanoseconds
