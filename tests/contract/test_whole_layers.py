"""Does one node alone, which runs whole layers, compute what rounds would, and refuse what it cannot?

Covers: sessions by hand; a mesh whose node stops early.
Does not cover: hostile nodes (tests/e2e/test_hostile_nodes.py), random messages (test_hostile_messages.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from common.errors import InputError, ProtocolError, ShapeError, ShardmeshError
from common.residual import Residual
from common.tensor_codec import decode_tensor
from common.weights.slice_format import BLOCK_KINDS
from coordinator.ends import Ends
from protos.shardmesh.v1 import shard_pb2
from shardnode.node import ShardNode
from shardnode.session import Session
from tests.support.mesh import run_alone, sliced, thread_mesh
from tests.support.random_models import build, save
from tests.support.session_messages import (
    ATTENTION,
    FFN,
    load_norms,
    open_sequence,
    open_session,
    random_rows,
    run_block,
    run_layers,
)
from tests.support.sliced_models import SlicedModel, slice_model

Request = shard_pb2.RoundsRequest
KINDS = dict(zip(BLOCK_KINDS, (ATTENTION, FFN), strict=True))


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> SlicedModel:
    """Return a tiny model with every bias, cut for one node."""
    model = build(layers=2, vocab_size=260, attention_bias=True, mlp_bias=True)
    return slice_model(tmp_path_factory.mktemp("biased"), model=model)


@pytest.fixture
def node(biased: SlicedModel) -> Iterator[ShardNode]:
    """Return a node without listeners."""
    made = ShardNode(biased.node_config())
    yield made
    made.close()


def residual_of(model: SlicedModel) -> Residual:
    """Return what the coordinator has between blocks."""
    ends = Ends(model.slice_directory(), model.manifest())
    ends.close()
    return ends.residual


def opened(model: SlicedModel, node: ShardNode) -> Session:
    """Return a session with sequence 1 open, of 64 positions."""
    session = Session(node)
    session.handle(open_session(1, model.identity))
    session.handle(open_sequence(2, position_capacity=64))
    return session


def by_rounds(
    session: Session, residual: Residual, hidden: torch.Tensor, first_position: int, call_id: int
) -> torch.Tensor:
    """Return what a coordinator makes of rounds with both layers."""
    hidden = hidden.clone()
    output = None
    for layer in range(2):
        for kind in BLOCK_KINDS:
            rows = residual.block_input(kind, layer, hidden, output)
            own = [(1, first_position, rows.shape[0])]
            answer = session.handle(run_block(call_id, rows, kind=KINDS[kind], layer=layer, segments=own))
            output = decode_tensor(answer.block_result.partial, shape=tuple(rows.shape)).clone()
            residual.add_late_bias(kind, layer, output)
            call_id += 1
    assert output is not None
    return hidden + output


@pytest.mark.parametrize("row_count", [1, 5, 40])
def test_whole_layers_give_the_bits_that_rounds_give(biased: SlicedModel, node: ShardNode, row_count: int) -> None:
    """By our kernels and by torch, with norms and late biases, for a prompt and for a row after it."""
    residual = residual_of(biased)
    rounds, layers = opened(biased, node), opened(biased, node)
    layers.handle(load_norms(3, residual))
    for number, (count, first) in enumerate([(row_count, 0), (1, row_count)]):
        hidden = random_rows(count, biased.spec.hidden_size, seed=number)
        expected = by_rounds(rounds, residual, hidden, first, 10 * (number + 1))
        answer = layers.handle(run_layers(10 * (number + 1), hidden, first_position=first)).layers_result
        assert answer.layer_count == 2
        assert torch.equal(decode_tensor(answer.output, shape=tuple(hidden.shape)), expected)


def spoiled(request: Request, spoil: Callable[[Request], object]) -> Request:
    """Return a spoiled request."""
    spoil(request)
    return request


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda r: setattr(r.run_layers, "layer_count", 0), InputError),
        (lambda r: setattr(r.run_layers, "layer_count", 3), InputError),
        (lambda r: setattr(r.run_layers, "layer_count", -1), InputError),
        (lambda r: setattr(r.run_layers, "first_layer", -1), InputError),
        (lambda r: setattr(r.run_layers, "first_layer", 2_147_483_647), InputError),
        (lambda r: setattr(r.run_layers.segments[0], "row_count", 2), ShapeError),
        (lambda r: setattr(r.run_layers.segments[0], "sequence_id", 9), ProtocolError),
        (lambda r: r.run_layers.input.Clear(), ShapeError),
        (lambda r: r.run_layers.ClearField("segments"), ShapeError),
    ],
)
def test_layers_that_there_are_not_are_refused(
    biased: SlicedModel, node: ShardNode, spoil: Callable[[Request], object], kind: type[ShardmeshError]
) -> None:
    """And the session ends holding nothing."""
    session = opened(biased, node)
    session.handle(load_norms(3, residual_of(biased)))
    with pytest.raises(kind):
        session.handle(spoiled(run_layers(4, random_rows(1, biased.spec.hidden_size)), spoil))
    session.close()
    assert not node.lock.locked()
    assert node.kv_cache.reserved_bytes == 0


def test_layers_before_their_norms_are_refused(biased: SlicedModel, node: ShardNode) -> None:
    """The node has no norms of its own."""
    with pytest.raises(ProtocolError, match="before load_norms"):
        opened(biased, node).handle(run_layers(3, random_rows(1, biased.spec.hidden_size)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.load_norms.attention_norms.shape.__setitem__(0, 3),
        lambda r: r.load_norms.ClearField("ffn_norms"),
        lambda r: setattr(r.load_norms.down_biases, "data", b""),
        lambda r: setattr(r.load_norms.output_biases, "dtype", 3),
    ],
)
def test_norms_of_another_shape_are_refused(
    biased: SlicedModel, node: ShardNode, spoil: Callable[[Request], object]
) -> None:
    """Their shapes are the model's."""
    with pytest.raises(ShapeError):
        opened(biased, node).handle(spoiled(load_norms(3, residual_of(biased)), spoil))


def test_a_node_that_has_only_a_part_refuses_norms(tmp_path: Path) -> None:
    """Its output has to be added to others' before it may be normed."""
    model = slice_model(tmp_path, world_size=2)
    node = ShardNode(model.node_config(rank=0))
    try:
        with pytest.raises(ProtocolError, match="one of 2 ranks"):
            opened(model, node).handle(load_norms(3, residual_of(model)))
    finally:
        node.close()


def test_a_node_that_stops_after_each_layer_answers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk makes more and shorter runs, and no other tokens."""
    directory = save(build(layers=3, vocab_size=260), tmp_path)
    with sliced(directory, tmp_path / "split", world_size=1) as model, thread_mesh(model, memory_window=2) as mesh:
        monkeypatch.setattr("shardnode.layers.CALL_SECONDS", 0.0)
        prompt = list(range(3, 20))
        rounds = mesh.engine.mesh.times
        whole = run_alone(mesh, prompt, length=6)
        at_once = rounds.round_count
        monkeypatch.setattr("shardnode.layers.RUN_SECONDS", -1.0)
        assert run_alone(mesh, prompt, length=6) == whole
        assert (at_once, rounds.round_count) == (6, 6 + 18)
