"""Do whole sweeps whose rounds follow one another in C give the bits of rounds one by one, over every transport?

Covers: Ranks and the layer pass over nodes that listen, ranks that hold no heads, a node that goes meanwhile.
Does not cover: what is odd in single answers (test_round_in_c.py), text (tests/e2e).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import pytest

from common.errors import NodeLost
from common.weights.slice_format import ATTENTION, FFN
from common.weights.stored_numbers import Floats
from coordinator.ranks.layer_pass import layer_pass
from coordinator.ranks.quick_rounds import Ran
from coordinator.ranks.ranks import Ranks
from coordinator.ranks.round_record import RoundRecord, block_at
from coordinator.ranks.sweep import Sweep
from protos.shardmesh.v1 import shard_pb2
from tests.support.listening_nodes import TRANSPORTS, ListeningNode, Transport
from tests.support.random_models import build
from tests.support.session_messages import random_rows
from tests.support.sliced_models import SlicedModel, slice_model

LAYERS = 4
BLOCKS = 2 * LAYERS
STEPS = ((3, 0), (1, 3), (1, 4), (2, 5), (1, 6))
"""Rows of each sweep, and the first one's position: a prompt, tokens, a guess of which one is taken back."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SlicedModel:
    """Return a model with every bias for three ranks, of which one holds columns only."""
    made = build(layers=LAYERS, vocab_size=260, attention_bias=True, mlp_bias=True)
    sliced = slice_model(tmp_path_factory.mktemp("swept"), model=made, world_size=3, strategy="ratio:5,5,1")
    assert sliced.identity.taking_part() == {ATTENTION: (0, 1), FFN: (0, 1, 2)}
    return sliced


class Swept:
    """Sweeps over nodes of one kind, and what became of them."""

    def __init__(self, model: SlicedModel, transport: Transport, closing: ExitStack) -> None:
        self.nodes = [closing.enter_context(ListeningNode(model, transport, rank=rank)) for rank in range(3)]
        self.ranks = Ranks(clients=[node.connect() for node in self.nodes], identity=model.identity)
        closing.callback(self.ranks.close)
        self.ranks.open()
        self.records = list[RoundRecord]()
        self.ranks.observers.append(self.records.extend)
        self.passes = layer_pass(self.ranks, model.residual())
        self._width = model.spec.hidden_size

    def run(self, steps: Sequence[tuple[int, int]] = STEPS) -> list[Floats]:
        """Return what each sweep comes to."""
        found, changes = [], shard_pb2.SequenceChanges()
        changes.opened.add(sequence_id=1, position_capacity=32)
        for number, (count, first) in enumerate(steps):
            segment = shard_pb2.Segment(sequence_id=1, first_position=first, row_count=count, rotary_length=8)
            sweep = Sweep(sweep_id=number + 1, segments=[segment], changes=None if number else changes)
            found.append(self.passes.run(sweep, random_rows(count, self._width, seed=number)).hidden)
        return found


def count_of_quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by how many rounds each call of C has done."""
    counts, run = list[int](), Ranks.run_blocks

    def counted(ranks: Ranks, residual: object, next_block: int, *others: object) -> Ran:
        ran = run(ranks, residual, next_block, *others)  # type: ignore[arg-type]
        counts.append(ran.next_block - next_block)
        return ran

    monkeypatch.setattr(Ranks, "run_blocks", counted)
    return counts


def one_by_one(ranks: Ranks, residual: object, next_block: int, sweep: Sweep, hidden: Floats, output: Floats) -> Ran:
    """Leave every round to Python."""
    return Ran(next_block, output, None)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sweeps_in_c_give_the_bits_of_rounds_one_by_one(
    model: SlicedModel, monkeypatch: pytest.MonkeyPatch, transport: Transport
) -> None:
    """But for the two rounds that say whose rows they are; every round's record is there, in its order."""
    with ExitStack() as closing:
        counts = count_of_quick(monkeypatch)
        swept = Swept(model, transport, closing)
        quick = swept.run()
        is_quick = transport in ("direct", "frames", "frames-tls")
        assert sum(counts) == (len(STEPS) * (BLOCKS - 2) if is_quick else 0)
        for number in range(len(STEPS)):
            records = swept.records[number * BLOCKS : (number + 1) * BLOCKS]
            assert {record.sweep_id for record in records} == {number + 1}
            assert [(record.layer, record.kind) for record in records] == [block_at(place) for place in range(BLOCKS)]
            assert [len(record.parts) for record in records] == [2, 3] * LAYERS
            assert all(one.finished <= next_one.started for one, next_one in pairwise(records))
    with ExitStack() as closing:
        monkeypatch.setattr(Ranks, "run_blocks", one_by_one)
        slow = Swept(model, "grpc-unix", closing).run()
    assert all(np.array_equal(one, other) for one, other in zip(quick, slow, strict=True))


@pytest.mark.parametrize("transport", ["direct", "frames", "frames-tls"])
def test_a_node_that_goes_is_named_as_in_any_round(model: SlicedModel, transport: Transport) -> None:
    """Whichever of the two ways finds it; rounds before it are counted."""
    with ExitStack() as closing:
        swept = Swept(model, transport, closing)
        swept.run(STEPS[:1])
        swept.nodes[1].stop()
        with pytest.raises(NodeLost, match="node 0"):  # each is called so here
            swept.run(STEPS[:1] * 2)
        assert len(swept.records) >= BLOCKS
