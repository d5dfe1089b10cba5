"""Do bfloat16 and 8 bits on the wire take fewer bytes, and change the numbers by no more than they must?

Covers: both ends of `--wire-dtype` over gRPC. Does not cover: which tokens come of it: not quite the same, by choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError, ShapeError
from common.weights.stored_numbers import Floats
from common.wire.rpc import PROTOCOL_VERSION
from coordinator.answering.run_options import RunOptions
from coordinator.models.local_model import LocalModel
from coordinator.ranks.travel import Travel
from protos.shardmesh.v1 import shard_pb2, tensor_pb2
from tests.support.listening_nodes import ListeningNode, ask
from tests.support.mesh import RecordingSampler, run_alone, sliced, thread_mesh
from tests.support.random_models import build, save
from tests.support.session_messages import open_sequence
from tests.support.sliced_models import slice_model

PROMPT = list(range(3, 40))
LENGTH = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    """Return a model on two nodes."""
    directory = tmp_path_factory.mktemp("model")
    with sliced(save(build(), directory / "m"), directory / "slices", world_size=2) as opened:
        yield opened


def logits(model: LocalModel, wire_dtype: str) -> Floats:
    """Return the logits of the first token, and more with fewer bits of difference between prompts."""
    sampler = RecordingSampler()
    with thread_mesh(model, memory_window=2, transport="grpc", wire_dtype=wire_dtype) as opened:
        run_alone(opened, PROMPT, length=LENGTH, sampler=sampler)
    return sampler.logits[0]


def test_numbers_that_travel_in_half_the_bytes_are_nearly_the_same(model: LocalModel) -> None:
    """They differ, or nothing travelled in bfloat16; and by less than its eight bits of precision add up to."""
    exact, halved = logits(model, "float32"), logits(model, "bfloat16")
    difference = np.abs(exact - halved).max() / np.abs(exact).max()
    assert 0 < difference < 0.03


def test_a_prompt_in_8_bits_gives_nearly_the_same_numbers(model: LocalModel) -> None:
    """Coarser than bfloat16, and not so coarse that another token is likelier by much."""
    exact, rounded = logits(model, "float32"), logits(model, "int8")
    difference = np.abs(exact - rounded).max() / np.abs(exact).max()
    assert 0 < difference < 0.1


def test_a_round_in_bfloat16_is_answered_in_bfloat16(tmp_path: Path) -> None:
    """Half the bytes each way; a float32 input is refused then."""
    sliced_model = slice_model(tmp_path)
    with ListeningNode(sliced_model, "grpc-tcp") as node:
        client = node.connect()
        manifest = sliced_model.manifest(0)
        opening = shard_pb2.OpenSession(
            protocol_version=PROTOCOL_VERSION, model_identity=manifest.model_identity,
            plan_digest=manifest.plan.digest, rank=0, weights_dtype=manifest.dtype,
            wire_dtype=tensor_pb2.TENSOR_DTYPE_BFLOAT16,
        )  # fmt: skip
        ask(client, shard_pb2.RoundsRequest(call_id=1, open_session=opening))
        hidden = manifest.spec.hidden_size
        ask(client, open_sequence(2, position_capacity=4))

        def block(dtype: tensor_pb2.TensorDtype, item_bytes: int) -> shard_pb2.RunBlock:
            return shard_pb2.RunBlock(
                kind=shard_pb2.BLOCK_KIND_FFN, segments=[shard_pb2.Segment(sequence_id=1, row_count=1)],
                input=tensor_pb2.Tensor(dtype=dtype, shape=[1, hidden], data=bytes(item_bytes * hidden)),
            )  # fmt: skip

        answer = ask(
            client, shard_pb2.RoundsRequest(call_id=3, run_block=block(tensor_pb2.TENSOR_DTYPE_BFLOAT16, 2))
        ).block_result.partial
        assert (answer.dtype, len(answer.data)) == (tensor_pb2.TENSOR_DTYPE_BFLOAT16, 2 * hidden)
        with pytest.raises(ShapeError, match="expected bfloat16"):
            ask(client, shard_pb2.RoundsRequest(call_id=4, run_block=block(tensor_pb2.TENSOR_DTYPE_FLOAT32, 4)))
        client.close()


@pytest.mark.parametrize("number", [tensor_pb2.TENSOR_DTYPE_FLOAT16, 99])
def test_another_type_is_refused_when_the_session_opens(tmp_path: Path, number: int) -> None:
    """Float16 overflows where a residual stream is large; other numbers mean nothing."""
    sliced_model = slice_model(tmp_path)
    manifest = sliced_model.manifest(0)
    with ListeningNode(sliced_model, "direct") as node:
        client = node.connect()
        opening = shard_pb2.OpenSession(
            protocol_version=PROTOCOL_VERSION, model_identity=manifest.model_identity,
            plan_digest=manifest.plan.digest, rank=0, weights_dtype=manifest.dtype,
            wire_dtype=number,  # type: ignore[arg-type] # what a peer may send
        )  # fmt: skip
        with pytest.raises(ShapeError, match="cannot travel as"):
            ask(client, shard_pb2.RoundsRequest(call_id=1, open_session=opening))
        client.close()


def test_an_unknown_type_on_the_command_line_is_refused() -> None:
    """Before anything is started."""
    with pytest.raises(InputError, match="--wire-dtype is 'int3'"):
        RunOptions(kv_budget_bytes=1, travel=Travel(dtype="int3"))
