"""Does a node answer the same bits whether its weights come from the page cache or through the window?

Covers: rounds of single rows; a slice that is evicted while the node serves.
Does not cover: which tiles may be taken (tests/unit/test_cached_reads.py), whole layers (test_whole_layers.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from common.compute.matmul import kernels
from common.weights.weight_memory import WeightMemory
from shardnode.sessions.session import Session
from shardnode.work.slice_at_work import ShardNode
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
