"""Does a real model answer as transformers does in float32, token for token, on every number of nodes?

Covers: eleven prompts (code, other scripts, emoji, chat, white space, one longer than a prefill chunk) on real
processes, streamed and resident, each prompt and each plan with both. One node that holds its weights answers all 64
tokens of each; of other plans each has every second prompt, and answers a quarter of each, different ones; with
SHARDMESH_THOROUGH=1 (.ci/run) all tokens of all, on three plans more.
The answers are in smollm2_greedy.json; make_smollm2.py writes it, and `python -m tests.golden --check` asks whether
transformers still says so.
Does not cover: other families (test_families.py), text and its options (tests/e2e).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.model.sweep_size import MAX_ROWS
from common.weights.balanced_plans import balanced_plan
from common.weights.model_encodings import AS_THE_FILE
from common.weights.slice_description import SliceDescription, total_bytes
from coordinator.answering.open_model import OpenModel
from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.local.pool import LocalNodes
from coordinator.models.local_model import LocalModel
from coordinator.planning.outline import outline
from coordinator.tokenizer import load_tokenizer
from tests.golden.smollm2_prompts import CHATS, GOLDEN, LEAST_MARGIN, LENGTH, PROMPTS, sha256_of
from tests.support.mesh import importing_pool, new_sequence, process_meshes, run_together, sliced
from tests.support.thorough import THOROUGH

GOLDEN_DOCUMENT: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
ENTRIES: list[dict[str, Any]] = GOLDEN_DOCUMENT["prompts"]
LONG = "long"
SHORT = [entry for entry in ENTRIES if entry["name"] != LONG]
PLANS = [(1, "uniform"), (2, "uniform"), (4, "uniform"), (9, "uniform"), (3, "ratio:3,1,1")]
if THOROUGH:
    PLANS += [(3, "uniform"), (5, "uniform"), (7, "uniform")]
LONG_ON = (9, "uniform")
"""The plan on which the long prompt is answered too: it takes as long to read as all others together."""
ALONE = SHORT[:2]
"""Prompts that also have a mesh to themselves, on one and two nodes: sharing sweeps is not what makes them right.
The second goes to the streamed one of one node, whose kernels take single rows' weights from the page cache."""
QUARTER = LENGTH // 4


STREAMED, RESIDENT = 2, 0
"""Memory windows: two blocks, and everything."""


def plan_name(plan: tuple[int, str]) -> str:
    """Return a plan as a person reads it."""
    return f"{plan[0]} nodes {plan[1]}"


def windows_on(plan: tuple[int, str]) -> list[list[int]]:
    """Return the windows of each mesh by rank: one node streams in one mesh, and holds its weights in another.

    More are one mesh of unlike devices: every other one streams, the odd ones on one plan and the even on the next.
    """
    if plan[0] == 1:
        return [[STREAMED], [RESIDENT]]
    return [[(STREAMED, RESIDENT)[(rank + PLANS.index(plan)) % 2] for rank in range(plan[0])]]


def entries_on(plan: tuple[int, str], *, whole: bool) -> list[dict[str, Any]]:
    """Return which entries a plan is asked: all, or every second one, from the first or from the next, and the long."""
    short = SHORT if whole or THOROUGH else SHORT[PLANS.index(plan) % 2 :: 2]
    return [entry for entry in ENTRIES if entry in short or (entry["name"] == LONG and plan == LONG_ON)]


def asked_of(plan: tuple[int, str], entry: dict[str, Any], *, whole: bool) -> tuple[list[int], list[int]]:
    """Return what a plan is given of one entry, and what it has to answer.

    That is the prompt and all 64 tokens, or the answer's beginning too and the quarter that follows: the four plans of
    several nodes that are always tried have the four quarters, and each prompt two of them.
    """
    prompt_ids, token_ids = entry["prompt_ids"], entry["token_ids"]
    if whole or THOROUGH:
        return prompt_ids, token_ids
    first = QUARTER * ((PLANS.index(plan) + ENTRIES.index(entry)) % 4)
    return prompt_ids + token_ids[:first], token_ids[first : first + QUARTER]


@pytest.fixture(scope="module", params=PLANS, ids=plan_name)
def sliced_model(
    request: pytest.FixtureRequest, demo_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LocalModel, LocalNodes]]:
    """Return the demo model cut by one plan, and a pool for its nodes, which imports meanwhile.

    Its slices are gone before the next plan's are made.
    """
    world_size, strategy = request.param
    directory = tmp_path_factory.mktemp("slices")
    with importing_pool() as pool, sliced(demo_model, directory, world_size=world_size, strategy=strategy) as model:
        yield model, pool
    shutil.rmtree(directory)


@pytest.mark.timeout(400)  # seconds; a twentieth of it on two cores with nothing else to do
def test_every_prompt_is_answered_as_transformers_answers_it(sliced_model: tuple[LocalModel, LocalNodes]) -> None:
    """Not one token differs, where weights stream through a window of two blocks and where all are in memory."""
    model, pool = sliced_model
    plan = (model.plan.world_size, model.plan.strategy)
    windows = windows_on(plan)
    asked = [
        [asked_of(plan, entry, whole=whole) for entry in entries_on(plan, whole=whole)]
        for whole in [those == [RESIDENT] for those in windows]
    ]
    alone = [asked_of(plan, entry, whole=False) for entry in ALONE] if model.plan.world_size <= 2 else []
    with (
        process_meshes(model, pool, memory_windows=windows) as meshes,
        ThreadPoolExecutor(max_workers=2) as threads,  # side by side: one mesh alone leaves half of two cores idle
    ):
        for checked in [threads.submit(check_answers, *each) for each in zip(meshes, asked, strict=True)]:
            checked.result()
        for mesh, prompt in zip(meshes[::-1], alone, strict=False):
            check_answers(mesh, [prompt])
        for mesh, windows_by_rank in zip(meshes, windows, strict=True):
            check_window_promise(model, mesh, windows_by_rank)


def check_answers(mesh: OpenModel, asked: list[tuple[list[int], list[int]]]) -> None:
    """Ask all at once, and see that each is answered as it has to be."""
    sequences = [new_sequence(mesh, prompt_ids, length=len(answer)) for prompt_ids, answer in asked]
    run_together(mesh, sequences)
    assert [sequence.generated_ids for sequence in sequences] == [answer for _, answer in asked]


def check_window_promise(model: LocalModel, conversation: OpenModel, windows_by_rank: list[int]) -> None:
    """After dozens of sweeps no node has ever held more weight bytes than its window was promised to be."""
    for stats, memory_window in zip(conversation.node_stats(), windows_by_rank, strict=True):
        blocks = model.split.slice_of(model.checkpoint, stats.rank).block_layouts().values()
        block_bytes = [sum(tile.byte_count for tile in layout.tiles) for layers in blocks for layout in layers]
        slice_bytes = sum(block_bytes)
        if memory_window:
            assert 0 < stats.peak_weight_bytes <= stats.window_bytes <= memory_window * max(block_bytes)
            assert stats.resident_bytes == 0
            assert stats.read_bytes + stats.cached_read_bytes >= 3 * slice_bytes
        else:
            assert stats.window_bytes == 0
            assert stats.resident_bytes == stats.peak_weight_bytes == stats.read_bytes == slice_bytes


def test_slices_take_what_the_file_takes(demo_model: Path) -> None:
    """At most 1.03 of it on one node, and 1.06 of it and of what is copied on seven: KV heads, blocks at cuts."""
    file_bytes = (demo_model / "model.gguf").stat().st_size
    with closing(open_checkpoint(demo_model)) as checkpoint:
        about = outline(checkpoint).description()
    assert about.dtype == AS_THE_FILE
    planned = {count: replace(about, plan=balanced_plan(about, "uniform", count)) for count in (1, 7)}
    copied = tensor_bytes(planned[7]) - tensor_bytes(planned[1])
    assert total_bytes(planned[1]) <= 1.03 * file_bytes
    assert total_bytes(planned[7]) <= 1.06 * (file_bytes + copied)


def tensor_bytes(about: SliceDescription) -> int:
    """Return the bytes of all ranks' tensors, without what lies between them."""
    layouts = [layout for one in about.all_ranks() for layout in one.layouts().values()]
    return sum(place.byte_count for layout in layouts for tile in layout.tiles for place in tile.tensors)


def test_the_prompts_are_what_they_should_be(demo_model: Path) -> None:
    """The file is of this model and of smollm2_prompts.py's prompts, which our tokenizer reads as transformers did."""
    assert GOLDEN_DOCUMENT["model_sha256"] == sha256_of(demo_model / "model.gguf")
    assert {entry["name"]: entry["text"] for entry in ENTRIES} == PROMPTS | CHATS
    tokenizer = load_tokenizer(demo_model)
    for entry in ENTRIES:
        text = entry["text"]
        if entry["chat"]:
            text = tokenizer.chat_prompt([{"role": "user", "content": text}])
        assert tokenizer.encode(text, add_special_tokens=not entry["chat"]) == entry["prompt_ids"], entry["name"]
    assert len(SHORT) >= 10
    assert all(len(entry["token_ids"]) == LENGTH for entry in ENTRIES)
    assert all(entry["least_margin"] >= LEAST_MARGIN for entry in ENTRIES)
    assert max(len(entry["prompt_ids"]) for entry in ENTRIES) > max(600, MAX_ROWS)
