"""Does a real Q4_K_M file, whose width no superblock fits, answer as transformers does on its dequantized weights?

Covers: Q5_0, Q8_0, Q6_K and Q4_K in one model of real processes, with SHARDMESH_THOROUGH=1 one to seven nodes and a
ratio, each plan's nodes streamed and resident in turn and 64 tokens of each answer, otherwise the ratio alone and a
quarter of every second one, by one mesh whose nodes differ; what slices take beside the file.
Does not cover: SmolLM2's Q4_1 (test_smollm2.py). Skipped where the file is not (tests/README.md says how to have it).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.weights.model_encodings import AS_THE_FILE
from common.weights.slice_description import total_bytes
from tests.golden.qwen2_coder_prompts import GOLDEN, MODEL
from tests.golden.smollm2_prompts import sha256_of
from tests.support.mesh import importing_pool, new_sequence, process_meshes, run_together, sliced
from tests.support.thorough import THOROUGH

DOCUMENT: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
ENTRIES: list[dict[str, Any]] = DOCUMENT["prompts"]
UNEVEN = (3, "ratio:3,1,1")
PLANS = [(1, "uniform"), (2, "uniform"), UNEVEN, (5, "uniform"), (7, "uniform")] if THOROUGH else [UNEVEN]
LENGTH = 64
STREAMED, RESIDENT = 2, 0
MOST_OF_THE_FILE = {1: 1.03, 7: 1.06}
"""Bytes of all slices together, of the file's, by the number of nodes; copied KV heads and blocks are among them."""

pytestmark = pytest.mark.skipif(not MODEL.is_file(), reason=f"{MODEL} is not there: 491 MB from elsewhere")


@pytest.mark.timeout(1200)  # seconds; a tenth of it on two cores with nothing else to do
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan[0]} nodes {plan[1]}")
def test_every_prompt_is_answered_as_transformers_answers_it(plan: tuple[int, str], tmp_path: Path) -> None:
    """Not one token differs, where weights stream through a window and where all are in memory."""
    world_size, strategy = plan
    length, entries = (LENGTH, ENTRIES) if THOROUGH else (LENGTH // 4, ENTRIES[::2])
    with importing_pool() as pool, sliced(MODEL, tmp_path, world_size=world_size, strategy=strategy) as model:
        assert model.dtype == AS_THE_FILE
        held = total_bytes(model.split.slice_of(model.checkpoint, 0))
        assert held <= MOST_OF_THE_FILE.get(world_size, 2) * MODEL.stat().st_size
        windows = [[STREAMED] * world_size, [RESIDENT] * world_size] if THOROUGH else [[STREAMED, RESIDENT, STREAMED]]
        with process_meshes(model, pool, memory_windows=windows) as meshes:
            for mesh in meshes:
                sequences = [new_sequence(mesh, entry["prompt_ids"], length=length) for entry in entries]
                run_together(mesh, sequences)
                expected = [entry["token_ids"][:length] for entry in entries]
                assert [sequence.generated_ids for sequence in sequences] == expected


def test_the_answers_are_this_files() -> None:
    """Ten prompts and more, of this very file."""
    assert DOCUMENT["model_sha256"] == sha256_of(MODEL)
    assert len(ENTRIES) >= 10
    assert all(len(entry["token_ids"]) == LENGTH for entry in ENTRIES)
