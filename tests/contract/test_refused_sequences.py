"""Does a sequence that a node refuses end, and nothing else, whatever carries the messages?

Covers: changes of sequences that come with a round, over every transport. Does not cover: what the coordinator makes of
a refusal (tests/unit/test_ranks.py), whole answers beside it (test_answers_in_company.py).
"""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputError, KvBudgetExceeded, ShardmeshError
from common.wire.rpc import Status, error_from
from common.wire.tensor_codec import decode_tensor
from tests.support.listening_nodes import NAME, ListeningNode, Transport, ask
from tests.support.session_messages import ATTENTION, FFN, open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import SlicedModel


@pytest.mark.parametrize(
    ("position_capacity", "kind"), [(0, InputError), (250, KvBudgetExceeded)], ids=["no position", "over the budget"]
)
def test_a_sequence_that_is_refused_ends_nobody_elses(
    sliced: SlicedModel, transport: Transport, position_capacity: int, kind: type[ShardmeshError]
) -> None:
    """It is told with its round, its rows mean nothing, and the other's are those that it has alone."""
    with ListeningNode(sliced, transport, kv_budget_bytes=40_000) as listening:
        client, alone = listening.connect(), listening.connect()
        rows = random_rows(3, sliced.spec.hidden_size)
        for one in (client, alone):
            ask(one, open_session(1, sliced.identity))
            ask(one, open_sequence(2))
        request = run_block(3, rows, segments=[(2, 0, 1), (1, 0, 2)])
        request.run_block.changes.opened.add(sequence_id=2, position_capacity=position_capacity)
        result = ask(client, request).block_result
        (refused,) = result.refused
        failure = refused.failure
        error = error_from(Status(code=failure.status, reason=failure.reason, message=failure.message), NAME)
        assert (refused.sequence_id, type(error)) == (2, kind)
        partial = decode_tensor(result.partial, shape=rows.shape)
        expected = decode_tensor(ask(alone, run_block(3, rows[1:])).block_result.partial, shape=(2, rows.shape[1]))
        assert np.array_equal(partial[1:], expected)
        assert not partial[0].any()
        assert listening.node.stats().open_sequence_count == 2


@pytest.mark.parametrize("row_count", [1, 40])
def test_a_sweep_whose_sequences_are_all_refused_is_answered(
    sliced: SlicedModel, listening: ListeningNode, row_count: int
) -> None:
    """With rows of 0, and the session goes on."""
    client = listening.connect()
    ask(client, open_session(1, sliced.identity))
    request = run_block(2, random_rows(row_count, sliced.spec.hidden_size))
    request.run_block.changes.opened.add(sequence_id=1, position_capacity=1 << 30)
    result = ask(client, request).block_result
    assert [one.sequence_id for one in result.refused] == [1]
    assert not decode_tensor(result.partial, shape=(row_count, sliced.spec.hidden_size)).any()
    assert ask(client, open_sequence(3)).HasField("sequences_changed")


def test_changes_come_with_the_first_message_of_a_sweep_and_count_once(
    sliced: SlicedModel, listening: ListeningNode
) -> None:
    """A rank without heads hears of them with another message than the others, so all say the same."""
    client = listening.connect()
    ask(client, open_session(1, sliced.identity))
    for call_id, layer, kind in ((2, 0, ATTENTION), (3, 0, FFN), (4, 1, ATTENTION)):
        request = run_block(call_id, random_rows(1, sliced.spec.hidden_size), layer=layer, kind=kind, sweep_id=5)
        request.run_block.changes.opened.add(sequence_id=1, position_capacity=4)
        assert not ask(client, request).block_result.refused
    assert listening.node.stats().open_sequence_count == 1
    request = run_block(
        5, random_rows(1, sliced.spec.hidden_size), sweep_id=6, segments=[(2, 0, 1)]
    )  # fmt: skip
    request.run_block.changes.closed.append(1)
    request.run_block.changes.opened.add(sequence_id=2, position_capacity=4)
    assert not ask(client, request).block_result.refused
    assert listening.node.stats().open_sequence_count == 1
