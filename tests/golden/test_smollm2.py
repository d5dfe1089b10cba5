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

from coordinator.conversation import Model
from tests.golden.make_smollm2 import GOLDEN, LENGTH
from tests.support.mesh import new_sequence, process_mesh, run_alone, run_together, sliced

ENTRIES: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))["prompts"]
PLANS = [(1, "uniform"), (2, "uniform"), (3, "uniform"), (4, "uniform"), (9, "uniform"), (3, "ratio:3,1,1")]


@pytest.fixture(scope="module", params=PLANS, ids=lambda plan: f"{plan[0]}-{plan[1]}")
def sliced_model(request: pytest.FixtureRequest, demo_model: Path, tmp_path_factory: Any) -> Iterator[Model]:
    """Return the demo model cut by one plan; its slices are gone before the next plan's are made."""
    world_size, strategy = request.param
    directory = tmp_path_factory.mktemp("slices")
    with sliced(demo_model, directory, world_size=world_size, strategy=strategy) as model:
        yield model
    shutil.rmtree(directory)


@pytest.mark.parametrize("memory_window", [2, 0])
def test_every_prompt_is_answered_as_transformers_answers_it(sliced_model: Model, memory_window: int) -> None:
    """All prompts in the same sweeps, 64 greedy tokens each: not one token differs."""
    with process_mesh(sliced_model, memory_window=memory_window) as conversation:
        if sliced_model.plan.world_size == 2 and memory_window == 0:
            answers = [run_alone(conversation, entry["prompt_ids"], length=LENGTH) for entry in ENTRIES]
        else:
            sequences = [new_sequence(conversation, entry["prompt_ids"], length=LENGTH) for entry in ENTRIES]
            run_together(conversation, sequences)
            answers = [sequence.generated_ids for sequence in sequences]
    for entry, answer in zip(ENTRIES, answers, strict=True):
        assert answer == entry["token_ids"], entry["name"]
