"""Does --activations int8 reach every product of a mesh, and is it refused in words where it cannot be?

Covers: one node's whole layers and three nodes' rounds, streamed and resident, the head, prompts and tokens; nodes that
are older, or compute with torch; names that there are not.
Does not cover: products (property/test_rounded_products.py), what it changes in real models (DECISIONS.md).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError, SliceMismatch
from common.weights.stored_numbers import Floats
from common.wire.rpc import PROTOCOL_VERSION
from coordinator.answering.run_options import RunOptions
from coordinator.models.local_model import LocalModel
from coordinator.ranks.activations import check_activations_of
from protos.shardmesh.v1 import shard_pb2
from shardnode.config import NodeConfig
from shardnode.sessions.same_slice import activations_of
from tests.support.gguf_models import write_gguf
from tests.support.listening_nodes import ListeningNode, ask
from tests.support.mesh import RecordingSampler, run_alone, sliced, thread_mesh
from tests.support.random_blocks import encoded
from tests.support.random_models import build
from tests.support.sliced_models import slice_model

PROMPT = [int(word % 320) for word in np.random.Philox(key=40).random_raw(40)]
LENGTH = 12
ENCODINGS = ("Q4_1", "Q8_0", "Q5_0", "Q4_0")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of several encodings, whose head is one of its matrices."""
    plain = build(
        hidden_size=96, intermediate_size=160, query_heads=6, kv_heads=3, head_size=32, layers=3, tied=True, seed=3
    )
    names = [name for name, tensor in plain.tensors.items() if tensor.ndim > 1]
    model, blocks = encoded(plain, lambda name: ENCODINGS[names.index(name) % len(ENCODINGS)])
    return write_gguf(model, tmp_path_factory.mktemp("model") / "model.gguf", blocks=blocks)


def answer(model: LocalModel, activations: str, window: int = 0) -> tuple[list[int], Floats]:
    """Return greedy tokens, and the logits that each came from."""
    sampler = RecordingSampler()
    with thread_mesh(model, memory_window=window, activations=activations) as opened:
        tokens = run_alone(opened, PROMPT, length=LENGTH, sampler=sampler)
    return tokens, sampler.logits


def test_any_number_of_nodes_gives_the_same_tokens_in_8_bits(path: Path, tmp_path: Path) -> None:
    """Streamed through a window the numbers are the same to the bit; float32's are near, and not the same."""
    with sliced(path, tmp_path / "one", world_size=1) as model:
        exact, (tokens, logits) = answer(model, "float32")[1], answer(model, "int8")
        assert all(np.array_equal(a, b) for a, b in zip(answer(model, "int8", window=2)[1], logits, strict=True))
    difference = np.abs(exact[0] - logits[0]).max() / np.abs(exact[0]).max()
    assert 1e-4 < difference < 0.1
    with sliced(path, tmp_path / "three", world_size=3) as model:
        assert answer(model, "int8")[0] == tokens


def test_a_node_that_does_not_know_the_choice_is_told_of(path: Path, tmp_path: Path) -> None:
    """It answers like one of an earlier version, which would compute in float32 and say nothing."""
    opened = shard_pb2.SessionOpened()
    check_activations_of(opened, "float32", "node1")
    with pytest.raises(SliceMismatch, match="node1 knows float32 activations only; install this version"):
        check_activations_of(opened, "int8", "node1")
    opened.activations = shard_pb2.ACTIVATIONS_INT8
    check_activations_of(opened, "int8", "node1")


def test_a_number_that_means_nothing_is_refused_when_the_session_opens(tmp_path: Path) -> None:
    """By a coordinator that is newer."""
    sliced_model = slice_model(tmp_path)
    manifest = sliced_model.manifest(0)
    with ListeningNode(sliced_model, "direct") as node:
        client = node.connect()
        opening = shard_pb2.OpenSession(
            protocol_version=PROTOCOL_VERSION, model_identity=manifest.model_identity,
            plan_digest=manifest.plan.digest, rank=0, weights_dtype=manifest.dtype,
            activations=99,  # type: ignore[arg-type] # what a peer may send
        )  # fmt: skip
        with pytest.raises(InputError, match="knows no activations of number 99"):
            ask(client, shard_pb2.RoundsRequest(call_id=1, open_session=opening))
        client.close()


def test_torch_computes_in_float32_only(tmp_path: Path) -> None:
    """Told by the command that was given both, and by a node that somebody started so."""
    run = RunOptions(kv_budget_bytes=1)
    with pytest.raises(InputError, match="--activations is 'int4'; use float32 or int8"):
        replace(run, activations="int4")
    with pytest.raises(InputError, match="torch does not"):
        replace(run, activations="int8", backend="torch")
    config = NodeConfig(slice_directory=tmp_path, listen="127.0.0.1:0", kv_budget_bytes=1)
    assert activations_of(shard_pb2.ACTIVATIONS_INT8, config) == "int8"
    with pytest.raises(InputError, match="torch does not"):
        activations_of(shard_pb2.ACTIVATIONS_INT8, replace(config, backend="torch"))
