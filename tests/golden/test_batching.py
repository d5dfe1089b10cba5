"""Is a sequence's answer the same whoever shares its sweeps, and however its prompt is cut?

Covers: sequences of different lengths in one sweep, joining, leaving, going back to an earlier position, chunks of
any size, of which two without SHARDMESH_THOROUGH=1; with sliding windows and with rotary scaling that depends on the
length.
Does not cover: whether the answer alone is right (test_families.py, test_smollm2.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from common.weights.stored_numbers import Floats
from coordinator.answering.open_model import OpenModel
from coordinator.engine.batch import BatchPart, next_batch
from coordinator.engine.sequence import Sequence
from tests.support.mesh import RecordingSampler, Transport, new_sequence, run_alone, run_together, sliced, thread_mesh
from tests.support.random_models import ROPES, build, save
from tests.support.thorough import THOROUGH

LENGTH, LAYERS = 30, 2
PROMPTS = [[(7 * i * i + 11 * seed + i) % 320 for i in range(length)] for seed, length in enumerate((3, 17, 40))]
"""The last two outgrow the sliding window; the last one, and all answers, the context `dynamic` was trained for."""
MODELS: dict[str, dict[str, Any]] = {
    "plain": {"family": "qwen3"},
    "window": {"family": "mistral", "sliding_window": 12},
    "dynamic": {"family": "llama", "rope": ROPES["dynamic"], "max_position_embeddings": 32},
}
KEPT = [0, 7, 29] if THOROUGH else [7]
CHUNKS = [1, 7, 13, 39, 40] if THOROUGH else [7, 39]
ROUNDING = 1e-4
"""Sums in another order differ by less; another key or position by far more."""


@pytest.fixture(scope="module", params=MODELS)
def conversation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenModel]:
    """Return a mesh of two nodes that stream their tiles."""
    directory = tmp_path_factory.mktemp("batching")
    path = save(build(layers=LAYERS, **MODELS[request.param]), directory / "model", tokenizer=False)
    with sliced(path, directory / "slices", world_size=2, tile_bytes=8192) as model:
        transport: Transport = "grpc" if request.param == "plain" else "direct"
        with thread_mesh(model, memory_window=2, transport=transport) as mesh:
            yield mesh


@pytest.fixture(scope="module")
def expected(conversation: OpenModel) -> list[list[int]]:
    """Return the answer to each prompt when it has the mesh to itself."""
    return [run_alone(conversation, prompt, length=LENGTH) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def whole_logits(conversation: OpenModel) -> Floats:
    """Return the logits of the longest prompt's answer, the prompt read in one sweep."""
    sampler = RecordingSampler()
    run_alone(conversation, PROMPTS[2], length=LENGTH, sampler=sampler)
    return sampler.logits


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[list[BatchPart]]:
    """Return a list that every sweep's batch is added to."""
    seen: list[list[BatchPart]] = []

    def watched(sequences: list[Sequence], most_rows: int) -> list[BatchPart]:
        seen.append(next_batch(sequences, most_rows))
        return seen[-1]

    monkeypatch.setattr("coordinator.engine.schedule.next_batch", watched)
    return seen


def test_sequences_share_sweeps_and_answer_as_alone(
    conversation: OpenModel,
    expected: list[list[int]],
    sweeps: list[list[BatchPart]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three lengths, read in chunks of 8 rows: prompts and answers meet in one sweep and do not disturb each other."""
    monkeypatch.setattr(conversation.engine, "_most_rows", 8)
    sequences = [new_sequence(conversation, prompt, length=LENGTH) for prompt in PROMPTS]
    run_together(conversation, sequences)
    assert [sequence.generated_ids for sequence in sequences] == expected
    kinds = [[part.first_position < len(part.sequence.prompt_ids) for part in batch] for batch in sweeps]
    assert any({True, False} <= set(batch) for batch in kinds), "no sweep held a prompt beside an answer"
    assert [False] * 3 in kinds, "no sweep held all three answers"
    assert any(len(part.token_ids) > 1 for batch in sweeps for part in batch if len(batch) > 1)


def test_a_sequence_that_joins_later_answers_as_alone(conversation: OpenModel, expected: list[list[int]]) -> None:
    """One is five tokens into its answer when the others come: none of them notices."""
    sequences = [new_sequence(conversation, prompt, length=LENGTH) for prompt in PROMPTS]
    conversation.engine.add(sequences[0])
    while len(sequences[0].generated_ids) < 5:
        conversation.engine.step()
    run_together(conversation, sequences[1:])
    assert [sequence.generated_ids for sequence in sequences] == expected


def test_a_sequence_that_leaves_disturbs_nobody(conversation: OpenModel, expected: list[list[int]]) -> None:
    """Removed in the middle of its answer: its room is given back, the others answer as alone."""
    sequences = [new_sequence(conversation, prompt, length=LENGTH) for prompt in PROMPTS]
    for sequence in sequences:
        conversation.engine.add(sequence)
    leaving = sequences[1]
    while len(leaving.generated_ids) < 6:
        conversation.engine.step()
    assert [stats.open_sequence_count for stats in conversation.node_stats()] == [3, 3]
    conversation.engine.remove(leaving)
    assert [stats.open_sequence_count for stats in conversation.node_stats()] == [2, 2]
    while sequences[0].finish_reason is None or sequences[2].finish_reason is None:
        conversation.engine.step()
    assert leaving.generated_ids == expected[1][:6]
    assert [sequences[0].generated_ids, sequences[2].generated_ids] == [expected[0], expected[2]]
    assert [stats.kv_bytes for stats in conversation.node_stats()] == [0, 0]


@pytest.mark.parametrize("kept_count", KEPT)
def test_going_back_to_an_earlier_position_is_as_if_nothing_had_followed(
    conversation: OpenModel, expected: list[list[int]], kept_count: int
) -> None:
    """A first position below the cached length truncates: another prompt with the same beginning goes on from there."""
    first, second = PROMPTS[2], [*PROMPTS[2][:kept_count], *reversed(PROMPTS[2][kept_count:])]
    fresh = run_alone(conversation, second, length=LENGTH)
    assert fresh != expected[2]
    sequence = new_sequence(conversation, first, length=LENGTH)
    conversation.engine.add(sequence)
    while len(sequence.generated_ids) < LENGTH - 1:
        conversation.engine.step()
    sequence.prompt_ids = tuple(second)
    sequence.computed_count = kept_count
    sequence.generated_ids.clear()
    while sequence.finish_reason is None:
        conversation.engine.step()
    assert sequence.generated_ids == fresh


@pytest.mark.parametrize("chunk_rows", CHUNKS)
def test_a_prompt_may_be_read_in_chunks_of_any_size(
    conversation: OpenModel,
    expected: list[list[int]],
    whole_logits: Floats,
    sweeps: list[list[BatchPart]],
    monkeypatch: pytest.MonkeyPatch,
    chunk_rows: int,
) -> None:
    """The tokens are equal and the logits too but for rounding."""
    monkeypatch.setattr(conversation.engine, "_most_rows", chunk_rows)
    sampler = RecordingSampler()
    assert run_alone(conversation, PROMPTS[2], length=LENGTH, sampler=sampler) == expected[2]
    assert np.allclose(whole_logits, sampler.logits, rtol=0, atol=ROUNDING)
    prompt_sweeps = len(sweeps) - (LENGTH - 1)
    assert prompt_sweeps == -(-len(PROMPTS[2]) // chunk_rows)
