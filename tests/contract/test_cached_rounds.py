"""Does a node answer the same bits whether its weights come from the page cache or through the window?

Covers: rounds of single rows, answered by Python and by C; a slice that is evicted while the node serves.
Does not cover: which tiles may be taken (tests/unit/test_cached_reads.py), whole layers (test_whole_layers.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from common.compute.matmul import kernels
from common.weights.weight_memory import WeightMemory
from shardnode.sessions.session import Session
from shardnode.work.slice_at_work import ShardNode
from tests.contract.test_blocks_in_c import FIRST_CALL, begin, blocks_of, packed, rows_of, wire_kind
from tests.support.listening_nodes import ListeningNode, ask
from tests.support.random_models import build
from tests.support.session_messages import FFN, open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import SlicedModel, slice_model
from tests.support.tiles_on_disk import forget_files

pytestmark = [
    pytest.mark.skipif(kernels.functions is None, reason="there are no kernels to take anything"),
    pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot read only what is cached"),
]


def rounds(node: ShardNode, sliced: SlicedModel, *, forgets: int = -1) -> list[bytes]:
    """Return what a node answers to eight sweeps of a row each; before one of them the cache forgets its slice."""
    session = Session(node)
    session.handle(open_session(1, sliced.identity))
    session.handle(open_sequence(2))
    answers, call_id = [], 3
    for position in range(8):
        if position == forgets:
            forget_files(sorted(sliced.slice_directory(0).glob("*.safetensors")))
        for layer in range(2):
            rows = random_rows(1, sliced.spec.hidden_size, seed=position * 2 + layer)
            own = [(1, position, 1)]
            attention = session.handle(run_block(call_id, rows, layer=layer, segments=own))
            ffn = session.handle(run_block(call_id + 1, rows, kind=FFN, layer=layer, segments=own))
            answers += [attention.block_result.partial.data, ffn.block_result.partial.data]
            call_id += 2
    session.close()
    return answers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("forgets", [-1, 3])
def test_a_node_answers_the_same_bits_from_the_cache_and_through_the_window(
    tmp_path: Path, dtype: str, forgets: int
) -> None:
    """Biases included; also when the slice is evicted between two sweeps."""
    model = build(layers=2, vocab_size=260, attention_bias=True, mlp_bias=True)
    sliced = slice_model(tmp_path, model=model, dtype=dtype)
    answers, read_bytes = {}, {}
    for page_cache in ("use", "bypass"):
        weights = WeightMemory(memory_window=2, page_cache=page_cache)
        node = ShardNode(sliced.node_config(weights=weights))
        answers[page_cache] = rounds(node, sliced, forgets=forgets)
        read_bytes[page_cache] = node.stats().read_bytes
        taken = node.tiles._cached.tiles_total  # type: ignore[attr-defined]
        assert (taken > 0) == (page_cache == "use")
        node.close()
    assert answers["use"] == answers["bypass"]
    assert np.isfinite(np.frombuffer(b"".join(answers["use"]), np.float32)).all()


def swept(node: ListeningNode, sliced: SlicedModel, forgets: int = -1) -> tuple[list[bytes], list[int], list[int]]:
    """Return answers to six sweeps of blocks, and for each sweep how many Python ran and what the cache gave."""
    client, executor, blocks, call_id = node.connect(), node.node.executor, blocks_of(sliced), FIRST_CALL
    found, runs, taken = list[bytes](), list[int](), list[int]()
    begin(client, sliced)
    with patch.object(executor, "run", side_effect=executor.run) as run:
        for sweep in range(6):
            earlier, earlier_bytes = run.call_count, node.node.stats().cached_read_bytes
            if sweep == forgets:
                forget_files(sorted(sliced.slice_directory(0).glob("*.safetensors")))
            for number, block in enumerate(blocks):
                call_id += 1
                rows = rows_of(sliced, call_id)
                if number:
                    found.append(packed(client, call_id, block, rows, sweep)[1].tobytes())
                    continue
                segments = [(1, sweep % 4, 1), (2, 2 * (sweep % 4), 2)]  # no more positions than there is room for
                first = run_block(call_id, rows, kind=wire_kind(block[0]), sweep_id=sweep, segments=segments)
                found.append(ask(client, first).block_result.partial.data)
            runs.append(run.call_count - earlier)
            taken.append(node.node.stats().cached_read_bytes - earlier_bytes)
    return found, runs, taken


@pytest.mark.parametrize("forgets", [-1, 4])
def test_c_answers_from_the_cache_what_python_would_and_counts_as_much(tmp_path: Path, forgets: int) -> None:
    """But for the first block of a sweep; what the cache has let go is Python's, and the next sweep is C's again."""
    sliced = slice_model(tmp_path, model=build(layers=3, vocab_size=260))
    with ListeningNode(sliced, "frames", weights=WeightMemory(memory_window=0)) as resident:
        expected, _, _ = swept(resident, sliced)
    with ListeningNode(sliced, "frames", weights=WeightMemory(memory_window=2)) as node:
        found, runs, taken = swept(node, sliced, forgets)
    assert found == expected
    of_python = len(blocks_of(sliced))
    assert runs[0] == of_python
    assert [number > 1 for number in runs[3:]] == [sweep == forgets for sweep in range(3, 6)]
    assert taken[3] == taken[5] == taken[2] > 0
    if forgets >= 0:
        assert taken[forgets] < taken[5]  # the system may keep some of what it is told to drop
