"""Do local nodes that are more than their cores work and wait on cores of their own, and only then?

Covers: which core a node is told, when a session expects another round of a prompt, when a token's rounds keep to it.
Does not cover: keeping to it (tests/unit/test_operating_system.py), what it is worth (`make bench`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from unittest.mock import PropertyMock, patch

import pytest

from common.weights.slice_format import FFN as FFN_KIND
from common.wire.packed_round import NextBlock, pack_next
from coordinator.local.pool import _home_core
from shardnode.listeners.answer_lane import AnswerLane
from shardnode.sessions.session import Session
from shardnode.work.slice_at_work import ShardNode
from tests.support.listening_nodes import ListeningNode, ask
from tests.support.session_messages import FFN, close_sequence, open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import SlicedModel


@pytest.mark.parametrize(
    ("node_count", "core_count", "cores"),
    [
        (4, 2, [0, 0, 1, 1]),
        (4, 4, [0, 1, 2, 3]),
        (4, 3, [0, 0, 1, 2]),
        (2, 3, [0, 1]),
        (4, 7, [0, 1, 3, 5]),
        (4, 8, [None] * 4),
        (4, 1, [None] * 4),
        (1, 1, [None]),
        (1, 2, [None]),
    ],
)
def test_nodes_of_one_thread_are_spread_over_the_cores(
    node_count: int, core_count: int, cores: list[int | None]
) -> None:
    """Every core gets some where there are enough; a node that computes on several has no core of its own."""
    assert [_home_core(rank, node_count, core_count) for rank in range(node_count)] == cores


def test_a_session_expects_a_long_round_after_a_long_one(sliced: SlicedModel) -> None:
    """Not after a few rows, nor after anything else: what is done there for tokens is another matter."""
    node = ShardNode(sliced.node_config())
    session = Session(node)
    expected = []
    for request in (
        open_session(1, sliced.identity),
        open_sequence(2),
        run_block(3, random_rows(32, sliced.spec.hidden_size), kind=FFN),
        run_block(4, random_rows(33, sliced.spec.hidden_size), kind=FFN),
        close_sequence(5),
    ):
        session.handle(request)
        expected.append(session.last_round_is_long)
    session.close()
    node.close()
    assert expected == [False, False, False, True, False]


@pytest.mark.parametrize("sleeps_at_once", [False, True])
def test_a_token_s_blocks_are_computed_at_home(sliced: SlicedModel, sleeps_at_once: bool) -> None:
    """But for a node that does not look for its messages: other programs want that core, or blocks take long."""
    cores: list[int | None] = []

    def keeps_to(core: int | None) -> AbstractContextManager[None]:
        cores.append(core)
        return nullcontext()

    rows = random_rows(1, sliced.spec.hidden_size)
    with (
        ListeningNode(sliced, "direct", home_core=1) as node,
        patch("shardnode.listeners.framed_session.on_core", keeps_to),
        patch.object(AnswerLane, "sleeps_at_once", PropertyMock(return_value=sleeps_at_once)),
    ):
        client = node.connect()
        ask(client, open_session(1, sliced.identity))
        ask(client, open_sequence(2))
        ask(client, run_block(3, rows, kind=FFN, sweep_id=5))
        for call_id in range(4, 8):
            client.submit(pack_next(NextBlock(call_id, 5, FFN_KIND, 0, False, False)) + rows.tobytes())
            client.collect()
    assert cores.count(None if sleeps_at_once else 1) >= 1
    assert (1 in cores) is not sleeps_at_once
