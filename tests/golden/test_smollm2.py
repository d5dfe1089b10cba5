"""Does a real model answer as transformers does in float32, token for token, on every number of nodes?

Covers: eleven prompts (code, other scripts, emoji, chat, white space, one longer than a prefill chunk) on real
processes, streamed and resident. The answers are in smollm2_greedy.json; make_smollm2.py writes it.
Does not cover: other families (test_families.py), text and its options (tests/e2e).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.weights.slice_format import BLOCK_KINDS, DEFAULT_TILE_BYTES, block_layout
from coordinator.conversation import Conversation, Model
from tests.golden.make_smollm2 import GOLDEN, LENGTH
from tests.support.mesh import new_sequence, process_mesh, run_alone, run_together, sliced

GOLDEN_DOCUMENT: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
LONG = "long"
ENTRIES: list[dict[str, Any]] = GOLDEN_DOCUMENT["prompts"]
SHORT = [entry for entry in ENTRIES if entry["name"] != LONG]
PLANS = [(1, "uniform"), (2, "uniform"), (3, "uniform"), (4, "uniform"), (9, "uniform"), (3, "ratio:3,1,1")]


@pytest.fixture(scope="module", params=PLANS, ids=lambda plan: f"{plan[0]} nodes {plan[1]}")
def sliced_model(
    request: pytest.FixtureRequest, demo_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    """Return the demo model cut by one plan; its slices are gone before the next plan's are made."""
    world_size, strategy = request.param
    directory = tmp_path_factory.mktemp("slices")
    with sliced(demo_model, directory, world_size=world_size, strategy=strategy) as model:
        yield model
    shutil.rmtree(directory)


def test_every_prompt_is_answered_as_transformers_answers_it(sliced_model: Model) -> None:
    """Streamed: all prompts in the same sweeps, the long one cut into chunks; no token of 64 differs."""
    check_together(sliced_model, memory_window=2, entries=ENTRIES)


def test_the_answers_are_the_same_with_all_weights_in_memory(sliced_model: Model) -> None:
    """Window 0: the same tokens."""
    check_together(sliced_model, memory_window=0, entries=SHORT)


def check_together(model: Model, *, memory_window: int, entries: list[dict[str, Any]]) -> None:
    """Answer all entries in the same sweeps and compare."""
    with process_mesh(model, memory_window=memory_window) as conversation:
        sequences = [new_sequence(conversation, entry["prompt_ids"], length=LENGTH) for entry in entries]
        run_together(conversation, sequences)
    for entry, sequence in zip(entries, sequences, strict=True):
        assert sequence.generated_ids == entry["token_ids"], entry["name"]
