"""Does a session refuse whatever a peer may send, allocate nothing for it, and leave a node that still serves?

Covers: RoundsRequests made by hand; the handshake. Does not cover: random ones (test_hostile_messages.py), transports'
own limits (test_transports.py).
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from common.errors import InputError, ProtocolError, ShapeError, ShardmeshError, SliceMismatch
from common.wire.tensor_codec import decode_tensor
from protos.shardmesh.v1 import shard_pb2, tensor_pb2
from shardnode.sessions.open_sequences import MAX_ROWS, MAX_SEQUENCES
from shardnode.sessions.session import Session
from shardnode.work.slice_at_work import ShardNode
from tests.support.session_messages import FFN, close_sequence, open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import SlicedModel

Request = shard_pb2.RoundsRequest


@pytest.fixture(scope="module")
def node(sliced: SlicedModel) -> Iterator[ShardNode]:
    """Return a node without listeners that all tests here mistreat, one after another."""
    made = ShardNode(sliced.node_config())
    yield made
    made.close()


def good_session(sliced: SlicedModel, node: ShardNode) -> Session:
    """Return a session with sequence 1 open, of 8 positions, 4 of them computed."""
    session = Session(node)
    session.handle(open_session(1, sliced.identity))
    session.handle(open_sequence(2))
    session.handle(run_block(3, random_rows(4, sliced.spec.hidden_size)))
    return session


def check_it_serves(sliced: SlicedModel, node: ShardNode) -> None:
    """Fail unless nothing is held and a good session gets the numbers that it always gets."""
    assert (node.stats().open_sequence_count, node.kv_cache.reserved_bytes) == (0, 0)
    assert not node.lock.locked()
    session = good_session(sliced, node)
    rows = random_rows(2, sliced.spec.hidden_size, seed=7)
    response = session.handle(run_block(4, rows, kind=FFN))
    session.close()
    partial = decode_tensor(response.block_result.partial, shape=(2, sliced.spec.hidden_size))
    gate, up, down = [
        sliced.model.floats(f"model.layers.0.mlp.{name}_proj.weight").T for name in ("gate", "up", "down")
    ]
    gated = rows @ gate
    expected = (gated / (1 + np.exp(-gated)) * (rows @ up)) @ down
    np.testing.assert_allclose(partial, expected, atol=1e-4, rtol=1e-4)
    assert (node.stats().open_sequence_count, node.kv_cache.reserved_bytes) == (0, 0)


def refused(session: Session, request: Request) -> ShardmeshError:
    """Return the error with which a session refuses a request, made without taking much memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ShardmeshError) as caught:
            session.handle(request)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        session.close()
    assert peak_bytes < 1 << 20
    assert "\n" not in str(caught.value)
    return caught.value


def spoiled(sliced: SlicedModel, spoil: Callable[[shard_pb2.RunBlock], object]) -> Request:
    """Return a good round of one row at position 4, spoiled."""
    request = run_block(4, random_rows(1, sliced.spec.hidden_size), segments=[(1, 4, 1)])
    spoil(request.run_block)
    return request


def set_shape(*shape: int) -> Callable[[shard_pb2.RunBlock], object]:
    """Return what claims another shape for a round's input."""

    def spoil(block: shard_pb2.RunBlock) -> None:
        del block.input.shape[:]
        block.input.shape.extend(shape)

    return spoil


def set_segment(**values: int) -> Callable[[shard_pb2.RunBlock], object]:
    """Return what changes fields of a round's one segment."""
    return lambda block: [setattr(block.segments[0], name, value) for name, value in values.items()]


SPOILED: dict[str, tuple[Callable[[shard_pb2.RunBlock], object], type[ShardmeshError]]] = {
    "no kind": (lambda block: block.ClearField("kind"), InputError),
    "unknown kind": (lambda block: setattr(block, "kind", 77), InputError),
    "negative layer": (lambda block: setattr(block, "layer", -1), InputError),
    "layer too high": (lambda block: setattr(block, "layer", 2), InputError),
    "no segments": (lambda block: block.ClearField("segments"), ShapeError),
    "unknown sequence": (set_segment(sequence_id=2), ProtocolError),
    "negative sequence": (set_segment(sequence_id=-1), ProtocolError),
    "no rows": (set_segment(row_count=0), InputError),
    "negative rows": (set_segment(row_count=-1), InputError),
    "more rows than the input has": (set_segment(row_count=2), ShapeError),
    "more rows than any round": (set_segment(row_count=MAX_ROWS + 1), ShapeError),
    "rows beyond any memory": (set_segment(row_count=2**31 - 1), ShapeError),
    "negative position": (set_segment(first_position=-1), InputError),
    "a gap in the positions": (set_segment(first_position=5), ProtocolError),
    "the highest position": (set_segment(first_position=2**31 - 1), ProtocolError),
    "negative rotary length": (set_segment(rotary_length=-1), InputError),
    "no input": (lambda block: block.ClearField("input"), ShapeError),
    "no dtype": (lambda block: block.input.ClearField("dtype"), ShapeError),
    "unknown dtype": (lambda block: setattr(block.input, "dtype", 9), ShapeError),
    "bfloat16 input": (lambda block: setattr(block.input, "dtype", tensor_pb2.TENSOR_DTYPE_BFLOAT16), ShapeError),
    "no shape": (set_shape(), ShapeError),
    "flat": (set_shape(64), ShapeError),
    "transposed": (set_shape(64, 1), ShapeError),
    "negative shape": (set_shape(-1, -64), ShapeError),
    "giant shape": (set_shape(1 << 40, 1 << 40), ShapeError),
    "a million dimensions": (set_shape(*[1] * 1_000_000), ShapeError),
    "no bytes": (lambda block: block.input.ClearField("data"), ShapeError),
    "a byte short": (lambda block: setattr(block.input, "data", block.input.data[:-1]), ShapeError),
    "a byte more": (lambda block: setattr(block.input, "data", block.input.data + b"\0"), ShapeError),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_round_is_refused_by_its_kind(sliced: SlicedModel, node: ShardNode, name: str) -> None:
    """Each field of a round is checked against the plan before anything is allocated for it."""
    spoil, kind = SPOILED[name]
    error = refused(good_session(sliced, node), spoiled(sliced, spoil))
    assert type(error) is kind
    assert len(str(error)) < 300
    check_it_serves(sliced, node)


def test_the_unspoiled_round_is_answered(sliced: SlicedModel, node: ShardNode) -> None:
    """The tests above refuse what they spoil, and nothing else."""
    session = good_session(sliced, node)
    assert session.handle(spoiled(sliced, lambda block: None)).HasField("block_result")
    session.close()


def test_a_position_beyond_the_reserved_ones_is_refused(sliced: SlicedModel, node: ShardNode) -> None:
    """A sequence never grows over the room it asked for."""
    rows = random_rows(5, sliced.spec.hidden_size)
    error = refused(good_session(sliced, node), run_block(4, rows, segments=[(1, 4, 5)]))
    assert type(error) is InputError
    assert "8 reserved" in str(error)
    check_it_serves(sliced, node)


def test_a_round_has_a_limited_number_of_rows(sliced: SlicedModel, node: ShardNode) -> None:
    """The last number that is allowed is answered; one row more is refused, though its input is all there."""
    rows = random_rows(MAX_ROWS + 1, sliced.spec.hidden_size)
    session = good_session(sliced, node)
    assert session.handle(run_block(4, rows[:-1], kind=FFN)).HasField("block_result")
    error = refused(session, run_block(5, rows, kind=FFN))
    assert type(error) is ShapeError
    assert f"from 1 to {MAX_ROWS}" in str(error)


@pytest.mark.parametrize("call_id", [3, 2, 0, -1, -(2**63)])
def test_a_replayed_call_is_refused(sliced: SlicedModel, node: ShardNode, call_id: int) -> None:
    """A call id must be larger than the one before: a replay would write keys and values twice."""
    error = refused(good_session(sliced, node), close_sequence(call_id))
    assert type(error) is ProtocolError
    assert str(call_id) in str(error)


def test_a_request_without_a_body_is_refused(sliced: SlicedModel, node: ShardNode) -> None:
    """None set is INVALID_ARGUMENT, as shard.proto says, before and after the handshake."""
    assert type(refused(Session(node), Request(call_id=1))) is InputError
    assert type(refused(good_session(sliced, node), Request(call_id=4))) is InputError


@pytest.mark.parametrize("request_", [open_sequence(1), close_sequence(1), run_block(1, np.zeros((1, 64), np.float32))])
def test_nothing_comes_before_the_handshake(node: ShardNode, request_: Request) -> None:
    """A peer that has not said what it takes this node for gets nothing from it."""
    error = refused(Session(node), request_)
    assert type(error) is ProtocolError
    assert "before open_session" in str(error)


def test_a_second_handshake_is_refused(sliced: SlicedModel, node: ShardNode) -> None:
    """A session is opened once."""
    assert type(refused(good_session(sliced, node), open_session(4, sliced.identity))) is ProtocolError


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("protocol_version", 1, "protocol version 3 instead of 1"),
        ("model_identity", "f" * 64, "model {model} instead of ffffffffffff"),
        ("plan_digest", "e" * 64, "plan {plan} instead of eeeeeeeeeeee"),
        ("rank", 3, "rank 0 instead of 3"),
        ("weights_dtype", "bfloat16", "weights dtype float32 instead of bfloat16"),
    ],
)
def test_a_handshake_that_differs_says_in_what(
    sliced: SlicedModel, node: ShardNode, field: str, value: object, words: str
) -> None:
    """A wrong model, plan, rank, dtype or version is SliceMismatch with both sides of that one difference."""
    request = open_session(1, sliced.identity)
    setattr(request.open_session, field, value)
    error = refused(Session(node), request)
    assert type(error) is SliceMismatch
    expected = words.format(model=sliced.identity.model_identity[:12], plan=sliced.plan.digest[:12])
    assert f"slice has {expected};" in str(error)


def test_all_that_differs_in_a_handshake_is_named_at_once(node: ShardNode) -> None:
    """Nobody repairs one difference only to learn of the next; hostile text is cut short."""
    request = Request(call_id=1)
    request.open_session.model_identity = "x" * 1_000_000
    error = refused(Session(node), request)
    assert all(word in str(error) for word in ("protocol version", "model", "plan", "weights dtype"))
    assert len(str(error)) < 300


def test_a_session_has_a_limited_number_of_sequences(sliced: SlicedModel, node: ShardNode) -> None:
    """Sequences cost memory even where their keys and values would still fit the budget."""
    session = Session(node)
    session.handle(open_session(1, sliced.identity))
    node.kv_cache.budget_bytes, budget_bytes = 1 << 40, node.kv_cache.budget_bytes
    try:
        for number in range(MAX_SEQUENCES):
            session.handle(open_sequence(2 + number, sequence_id=number, position_capacity=1))
        response = session.handle(open_sequence(5000, sequence_id=5000, position_capacity=1))
    finally:
        node.kv_cache.budget_bytes = budget_bytes
        session.close()
    assert [one.sequence_id for one in response.sequences_changed.refused] == [5000]
    check_it_serves(sliced, node)


def test_the_node_serves_after_all_that(sliced: SlicedModel, node: ShardNode) -> None:
    """The node that all of the above was sent to still computes what the model says."""
    check_it_serves(sliced, node)
