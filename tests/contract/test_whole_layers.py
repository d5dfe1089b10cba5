"""Does one node alone, which runs whole layers, compute what rounds would, and refuse what it cannot?

Covers: sessions by hand; a mesh whose node stops early.
Does not cover: hostile nodes (tests/e2e/test_hostile_nodes.py), random messages (test_hostile_messages.py).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.compute.matmul import kernels
from common.compute.residual import Residual
from common.errors import InputError, ProtocolError, ShapeError, ShardmeshError, SliceMismatch
from common.weights.open_tiles import sweep_tiles
from common.weights.pinning import least_weight_bytes
from common.weights.slice_format import BLOCK_KINDS
from common.weights.stored_numbers import Floats
from common.weights.weight_memory import WeightMemory
from common.wire.tensor_codec import decode_tensor
from protos.shardmesh.v1 import shard_pb2
from shardnode.sessions.session import Session
from shardnode.work.native_layers import LayersDone, NativeLayers
from shardnode.work.slice_at_work import ShardNode
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
from tests.support.tiles_on_disk import forget_files
from tests.support.waiting import wait_until

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


def opened(model: SlicedModel, node: ShardNode) -> Session:
    """Return a session with sequence 1 open, of 64 positions."""
    session = Session(node)
    session.handle(open_session(1, model.identity))
    session.handle(open_sequence(2, position_capacity=64))
    return session


def by_rounds(session: Session, residual: Residual, hidden: Floats, first_position: int, call_id: int) -> Floats:
    """Return what a coordinator makes of rounds with both layers."""
    hidden = hidden.copy()
    output = None
    for layer in range(2):
        for kind in BLOCK_KINDS:
            rows = residual.block_input(kind, layer, hidden, output)
            own = [(1, first_position, rows.shape[0])]
            answer = session.handle(run_block(call_id, rows, kind=KINDS[kind], layer=layer, segments=own))
            output = decode_tensor(answer.block_result.partial, shape=rows.shape).copy()
            residual.finish(kind, layer, output)
            call_id += 1
    assert output is not None
    return hidden + output


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> SlicedModel:
    """Return a tiny model without biases, in 16 bits, with a sliding window, cut for one node."""
    model = build("mistral", layers=2, vocab_size=260, sliding_window=6)
    return slice_model(tmp_path_factory.mktemp("plain"), model=model, dtype="bfloat16")


def native_layer_counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of layers that each native call has done."""
    counts: list[int] = []
    run = NativeLayers.run

    def counted(*arguments: Any) -> LayersDone:
        done = run(*arguments)
        counts.append(done.layer_count)
        return done

    monkeypatch.setattr(NativeLayers, "run", counted)
    return counts


@pytest.mark.parametrize("memory_window", [0, 2])
@pytest.mark.parametrize("row_count", [1, 5, 40])
@pytest.mark.parametrize("has_biases", [False, True])
def test_whole_layers_give_the_bits_that_rounds_give(
    biased: SlicedModel, plain: SlicedModel, monkeypatch: pytest.MonkeyPatch, memory_window: int, row_count: int,
    has_biases: bool,
) -> None:  # fmt: skip
    """Block by block and several layers in a call, with norms and late biases, for a prompt and for rows after it."""
    model = biased if has_biases else plain
    counts = native_layer_counts(monkeypatch)
    node = ShardNode(model.node_config(weights=WeightMemory(memory_window=memory_window, page_cache="use")))
    residual = model.residual()
    rounds, layers = opened(model, node), opened(model, node)
    layers.handle(load_norms(3, residual))
    steps = [(row_count, 0), (1, row_count), (3, row_count + 1), (1, row_count + 4), (1, row_count + 2)]
    for number, (count, first) in enumerate(steps):
        hidden = random_rows(count, model.spec.hidden_size, seed=number)
        expected = by_rounds(rounds, residual, hidden, first, 10 * (number + 1))
        answer = layers.handle(run_layers(10 * (number + 1), hidden, first_position=first)).layers_result
        assert answer.layer_count == 2
        assert np.array_equal(decode_tensor(answer.output, shape=hidden.shape), expected)
    rounds.close()
    layers.close()
    node.close()
    # From the page cache only what has no vectors of its own; those would have to be read anew each time.
    can_be_native = kernels.functions is not None and not (has_biases and memory_window)
    assert (2 in counts[2:]) == can_be_native


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot read only what is cached")
def test_layers_whose_weights_are_evicted_are_computed_all_the_same(
    plain: SlicedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the call that were done stay done; the rest goes through the window."""
    counts = native_layer_counts(monkeypatch)
    node = ShardNode(plain.node_config(weights=WeightMemory(memory_window=2, page_cache="use")))
    residual = plain.residual()
    rounds, layers = opened(plain, node), opened(plain, node)
    layers.handle(load_norms(3, residual))
    for position in range(8):
        hidden = random_rows(1, plain.spec.hidden_size, seed=position)
        expected = by_rounds(rounds, residual, hidden, position, 10 * (position + 1))
        if position == 5:
            forget_files(sorted(plain.slice_directory(0).glob("layer0001.*")))
        answer = layers.handle(run_layers(10 * (position + 1), hidden, first_position=position)).layers_result
        assert np.array_equal(decode_tensor(answer.output, shape=hidden.shape), expected)
    rounds.close()
    layers.close()
    node.close()
    assert counts.count(2) >= 2 or kernels.functions is None


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
    session.handle(load_norms(3, biased.residual()))
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
        opened(biased, node).handle(spoiled(load_norms(3, biased.residual()), spoil))


def test_a_node_that_has_only_a_part_refuses_norms(tmp_path: Path) -> None:
    """Its output has to be added to others' before it may be normed."""
    model = slice_model(tmp_path, world_size=2)
    node = ShardNode(model.node_config(rank=0))
    try:
        with pytest.raises(ProtocolError, match="one of 2 ranks"):
            opened(model, node).handle(load_norms(3, model.residual()))
    finally:
        node.close()


def test_a_node_that_stops_after_each_layer_answers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk makes more and shorter runs, and no other tokens."""
    directory = save(build(layers=3, vocab_size=260), tmp_path)
    with sliced(directory, tmp_path / "split", world_size=1) as model, thread_mesh(model, memory_window=2) as mesh:
        monkeypatch.setattr("shardnode.work.layers.CALL_SECONDS", 0.0)
        prompt = list(range(3, 20))
        rounds = mesh.engine.ranks.times
        whole = run_alone(mesh, prompt, length=6)
        at_once = rounds.round_count
        monkeypatch.setattr("shardnode.work.layers.RUN_SECONDS", -1.0)
        assert run_alone(mesh, prompt, length=6) == whole
        assert (at_once, rounds.round_count) == (6, 6 + 18)


def test_layers_of_which_some_tiles_stay_are_computed_all_the_same(
    plain: SlicedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a budget with the page cache in use: nothing is taken from there by a call that has not said so."""
    counts = native_layer_counts(monkeypatch)
    sizes = [tile.byte_count for tile in sweep_tiles(plain.slice_directory(0), plain.manifest(0))]
    weights = WeightMemory(budget_bytes=least_weight_bytes(sizes) + sum(sizes) // 2, page_cache="use")
    node = ShardNode(plain.node_config(weights=weights))
    assert 0 < node.tiles.stats.resident_bytes < sum(sizes)
    residual = plain.residual()
    rounds, layers = opened(plain, node), opened(plain, node)
    layers.handle(load_norms(3, residual))
    for position in range(6):
        hidden = random_rows(1, plain.spec.hidden_size, seed=position)
        expected = by_rounds(rounds, residual, hidden, position, 10 * (position + 1))
        answer = layers.handle(run_layers(10 * (position + 1), hidden, first_position=position)).layers_result
        assert np.array_equal(decode_tensor(answer.output, shape=hidden.shape), expected)
    rounds.close()
    layers.close()
    node.close()
    assert not any(counts)


def test_a_slice_that_is_closed_while_layers_are_computed_ends_the_session_and_not_the_node(
    biased: SlicedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel has addresses of weights that stay: their memory lives until it is done; the next call is refused."""
    node = ShardNode(biased.node_config(weights=WeightMemory(memory_window=0)))
    session = opened(biased, node)
    session.handle(load_norms(3, biased.residual()))
    session.handle(run_layers(4, random_rows(1, biased.spec.hidden_size)))  # kernels know the tiles from now on
    call = NativeLayers._call
    closing: list[threading.Thread] = []

    def closed_meanwhile(*arguments: Any) -> Any:
        closing.append(threading.Thread(target=node.close))
        closing[0].start()
        wait_until(lambda: node.is_closed, limit_seconds=5, what="the close")
        return call(*arguments)

    monkeypatch.setattr(NativeLayers, "_call", closed_meanwhile)
    monkeypatch.setattr(session._layers, "_layers_at_once", 1)
    with pytest.raises(SliceMismatch):
        session.handle(run_layers(5, random_rows(1, biased.spec.hidden_size), first_position=1))
    closing[0].join()
    session.close()
