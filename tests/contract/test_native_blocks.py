"""Is a block in one native call the same bits as tile by tile, and is it taken wherever its weights are at hand?

Covers: weights in memory and in the page cache, several tiles, several sequences, sessions in turns, memory of keys
that goes. Does not cover: whole layers (test_whole_layers.py), which tiles may be taken (test_cached_rounds.py).
"""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import numpy as np
import pytest

from common.compute.matmul import kernels
from common.weights.stored_numbers import Floats
from common.weights.weight_memory import WeightMemory
from shardnode.sessions.session import Session
from shardnode.work.executor import Executor
from shardnode.work.kv_cache import Segment, Segments
from shardnode.work.native_blocks import NativeBlocks
from shardnode.work.slice_at_work import ShardNode
from tests.support.random_models import build
from tests.support.session_messages import FFN, open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import SlicedModel, slice_model

SWEEPS, LAYERS, TILE_BYTES = 6, 2, 4096
pytestmark = pytest.mark.skipif(kernels.functions is None, reason="there are no kernels to call")


@pytest.fixture
def sliced(tmp_path: Path) -> SlicedModel:
    """Return a model of which each block is several tiles."""
    return slice_model(tmp_path, model=build(layers=LAYERS, vocab_size=260), tile_bytes=TILE_BYTES)


def node_with(sliced: SlicedModel, memory_window: int) -> ShardNode:
    """Return a node. Args: memory_window: 0: everything stays in memory."""
    return ShardNode(sliced.node_config(weights=WeightMemory(memory_window=memory_window)))


def answers(session: Session, sliced: SlicedModel, first_call: int, sweep: int) -> list[bytes]:
    """Return what all blocks make of two sequences' rows: one of the first, two of the second."""
    found = []
    own = [(1, sweep, 1), (2, 2 * sweep, 2)]
    for number in range(2 * LAYERS):
        rows = random_rows(3, sliced.spec.hidden_size, seed=10 * sweep + number)
        kind = {"kind": FFN} if number % 2 else {}
        message = run_block(first_call + number, rows, layer=number // 2, segments=own, **kind)
        found.append(session.handle(message).block_result.partial.data)
    return found


def all_answers(node: ShardNode, sliced: SlicedModel) -> list[bytes]:
    """Return the answers of a few sweeps."""
    session = Session(node)
    session.handle(open_session(1, sliced.identity))
    session.handle(open_sequence(2))
    session.handle(open_sequence(3, sequence_id=2, position_capacity=2 * SWEEPS))
    found = [data for sweep in range(SWEEPS) for data in answers(session, sliced, 4 + 2 * LAYERS * sweep, sweep)]
    session.close()
    return found


@pytest.mark.parametrize("memory_window", [0, 2])
def test_a_block_in_one_call_is_the_same_bits_as_tile_by_tile(
    sliced: SlicedModel, memory_window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From memory and from the page cache; most blocks go so once all their tiles have been seen."""
    if memory_window and not hasattr(os, "RWF_NOWAIT"):
        pytest.skip("this system cannot read only what is cached")
    taken = []
    run = NativeBlocks.run

    def counted(own: NativeBlocks, *arguments: object) -> Floats | None:
        part = run(own, *arguments)  # type: ignore[arg-type]  # as it was called
        taken.append(part is not None)
        return part

    monkeypatch.setattr(NativeBlocks, "run", counted)
    node = node_with(sliced, memory_window)
    in_one_call = all_answers(node, sliced)
    node.close()
    monkeypatch.setattr(NativeBlocks, "run", lambda *arguments: None)
    node = node_with(sliced, memory_window)
    tile_by_tile = all_answers(node, sliced)
    node.close()
    assert in_one_call == tile_by_tile
    assert sum(taken) >= len(taken) * (SWEEPS - 2) // SWEEPS


def test_two_sessions_in_turns_have_their_own_rows(sliced: SlicedModel) -> None:
    """What kernels were told of one sweep stays true while another session's sweep goes on."""
    node = node_with(sliced, 0)
    alone = all_answers(node, sliced)
    sessions = [Session(node), Session(node)]
    for session in sessions:
        session.handle(open_session(1, sliced.identity))
        session.handle(open_sequence(2))
        session.handle(open_sequence(3, sequence_id=2, position_capacity=2 * SWEEPS))
    found: tuple[list[bytes], list[bytes]] = ([], [])
    for sweep in range(SWEEPS):
        for own, session in zip(found, sessions, strict=True):
            own += answers(session, sliced, 4 + 2 * LAYERS * sweep, sweep)
            gc.collect()
    for session in sessions:
        session.close()
    node.close()
    assert found == (alone, alone)


def test_keys_and_values_go_when_their_sequence_has_ended(sliced: SlicedModel) -> None:
    """Nothing that a kernel was told keeps their memory."""
    node = node_with(sliced, 0)
    executor: Executor = node.executor
    sequence = node.kv_cache.open(8)
    segments = Segments([Segment(sequence=sequence, first_position=0, row_count=1, rotary_length=1)])
    rows = random_rows(1, sliced.spec.hidden_size, seed=1)
    for _ in range(2):
        assert np.isfinite(executor.run("attention", 0, segments, rows).partial).all()
    assert segments.described is not None
    seen = weakref.ref(sequence.store.array)
    node.kv_cache.close(sequence)
    del sequence, segments
    gc.collect()
    assert seen() is None
    node.close()
