"""Does the same seed give the same tokens, every time, on the same plan?

Covers: runs in one mesh and in new ones, streamed and resident, threads, gRPC and processes, with and without company.
Does not cover: whether tokens are drawn with the right probabilities (test_sampling_distribution.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import pytest

from common.weights.stored_numbers import Floats
from coordinator.answering.open_model import OpenModel
from coordinator.engine.sampling_params import SamplingParams
from coordinator.models.local_model import LocalModel
from tests.support.mesh import (
    RecordingSampler,
    new_sequence,
    process_mesh,
    run_alone,
    run_together,
    sliced,
    thread_mesh,
)
from tests.support.random_models import build, save

PARAMS = SamplingParams(temperature=1.3, top_k=60, top_p=0.95)
PROMPT = list(range(20, 45))
LENGTH = 48
SEED = 1234


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    """Return a random model cut for three nodes of different sizes, several tiles a block."""
    directory = tmp_path_factory.mktemp("repeatable")
    path = save(
        build("llama", layers=2, query_heads=6, kv_heads=3, hidden_size=96), directory / "model", tokenizer=False
    )
    with sliced(path, directory / "slices", world_size=3, strategy="ratio:3,1,2", tile_bytes=8192) as opened:
        yield opened


def drawn(conversation: OpenModel, seed: int) -> tuple[list[int], Floats]:
    """Return the tokens drawn with a seed and the logits they were drawn from."""
    sampler = RecordingSampler(PARAMS, seed)
    return run_alone(conversation, PROMPT, length=LENGTH, sampler=sampler), sampler.logits


@pytest.fixture(scope="module")
def reference(model: LocalModel) -> tuple[list[int], Floats]:
    """Return what one mesh drew with SEED."""
    with thread_mesh(model, memory_window=2) as conversation:
        return drawn(conversation, SEED)


@pytest.mark.parametrize("memory_window", [0, 2, 3])
def test_a_seed_gives_the_same_tokens_every_time(
    model: LocalModel, reference: tuple[list[int], Floats], memory_window: int
) -> None:
    """Twice in one mesh, and in another mesh with another window: the same tokens from the very same logits."""
    with thread_mesh(model, memory_window=memory_window) as conversation:
        for _ in range(2):
            token_ids, logits = drawn(conversation, SEED)
            assert token_ids == reference[0]
            assert np.array_equal(logits, reference[1])


Mesh = AbstractContextManager[OpenModel]


def over_grpc(model: LocalModel) -> Mesh:
    """Return a mesh of threads over gRPC."""
    return thread_mesh(model, memory_window=2, transport="grpc")


def over_processes(model: LocalModel) -> Mesh:
    """Return a mesh of processes."""
    return process_mesh(model, memory_window=2)


@pytest.mark.parametrize("mesh", [over_grpc, over_processes])
def test_the_way_to_the_nodes_does_not_matter(
    model: LocalModel, reference: tuple[list[int], Floats], mesh: Callable[[LocalModel], Mesh]
) -> None:
    """Messages over gRPC and nodes that are processes: the same tokens from the very same logits."""
    with mesh(model) as conversation:
        token_ids, logits = drawn(conversation, SEED)
    assert token_ids == reference[0]
    assert np.array_equal(logits, reference[1])


def test_another_seed_gives_other_tokens(model: LocalModel, reference: tuple[list[int], Floats]) -> None:
    """Five seeds, five answers."""
    with thread_mesh(model, memory_window=0) as conversation:
        answers = {tuple(drawn(conversation, seed)[0]) for seed in range(4)}
    assert len(answers | {tuple(reference[0])}) == 5


def test_what_others_draw_does_not_matter(model: LocalModel, reference: tuple[list[int], Floats]) -> None:
    """Three sequences in the same sweeps, each with its own seed: each draws what it draws alone."""
    seeds = (SEED, 7, 8)
    with thread_mesh(model, memory_window=2) as conversation:
        sequences = [
            new_sequence(conversation, PROMPT, length=LENGTH, sampler=RecordingSampler(PARAMS, seed)) for seed in seeds
        ]
        run_together(conversation, sequences)
        alone = [drawn(conversation, seed)[0] for seed in seeds[1:]]
    assert [sequence.generated_ids for sequence in sequences] == [reference[0], *alone]
