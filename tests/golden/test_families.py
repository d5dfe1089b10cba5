"""Does every family, rope scaling, dtype and file format give the tokens and logits that transformers gives?

Covers: small random models, one case for each feature and each neighbourhood of two,
on one node that streams and three that hold their weights, or the other way round; blocks in one tile and in
several; prompts read whole and in chunks. Without SHARDMESH_THOROUGH=1 a case has one of the two numbers of nodes.
Where torch is not installed, a `.bin` is a safetensors file.
Does not cover: real weights and processes (test_smollm2.py), how files are read (tests/unit/test_checkpoints.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from coordinator.models.local_model import LocalModel
from tests.support.mesh import RecordingSampler, run_alone, sliced, thread_mesh
from tests.support.random_models import ROPES, Format, build, readable, save
from tests.support.thorough import THOROUGH
from tests.support.transformers_answers import Answer, Theirs, some_logits

LENGTH = 64
LOGIT_TOLERANCE = 1e-3
LEAST_MARGIN = 1e-4
"""Nearer than this, rounding could decide; far above what sums in another order differ by."""
CHUNK_ROWS = 24
"""Prompts are longer: on three nodes they are read in several sweeps."""
SEVERAL_TILES = 8192


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model: what it is made of, how it is stored, how long the prompt is."""

    name: str
    family: str
    model: dict[str, Any] = field(default_factory=dict)
    fmt: Format = "safetensors"
    config_spelling: Literal[4, 5] = 5
    prompt_length: int = 40


CASES = (
    Case(name="llama 2: as many KV heads as query heads", family="llama", model={"kv_heads": 4}, config_spelling=4),
    Case(name="llama 3: grouped, untied", family="llama", fmt="sharded",
         model={"query_heads": 8, "kv_heads": 2, "head_size": 8, "theta": 500000.0}),
    Case(name="llama 3.1: its scaling, longer than the trained context", family="llama", prompt_length=90,
         model={"rope": ROPES["llama3"], "theta": 500000.0, "dtype": "bfloat16"}, config_spelling=4),
    Case(name="llama 3.2: tied, its scaling, pickled shards", family="llama", fmt="sharded-bin",
         model={"rope": ROPES["llama3"], "tied": True, "dtype": "float16"}),
    Case(name="yi: one KV head, a huge theta", family="llama", fmt="bin",
         model={"query_heads": 8, "kv_heads": 1, "head_size": 8, "theta": 5e6, "dtype": "bfloat16"}),
    Case(name="smollm: nine query and three KV heads, tied", family="llama", fmt="sharded-bin",
         model={"query_heads": 9, "kv_heads": 3, "head_size": 8, "hidden_size": 72, "tied": True}),
    Case(name="every bias, linear scaling", family="llama",
         model={"attention_bias": True, "mlp_bias": True, "rope": ROPES["linear"]}, config_spelling=4),
    Case(name="every bias, tied, another activation", family="llama", fmt="sharded",
         model={"attention_bias": True, "mlp_bias": True, "tied": True, "hidden_act": "gelu_pytorch_tanh"}),
    Case(name="dynamic scaling sets in while it answers", family="llama", config_spelling=4,
         model={"rope": ROPES["dynamic"], "max_position_embeddings": 64}),
    Case(name="dynamic scaling from the prompt on", family="qwen2", fmt="bin", prompt_length=90,
         model={"rope": ROPES["dynamic"], "max_position_embeddings": 64}),
    Case(name="yarn, longer than the trained context", family="llama", prompt_length=100,
         model={"rope": ROPES["yarn"], "kv_heads": 1}),
    Case(name="yarn with mscales, not truncated", family="qwen2", fmt="sharded", prompt_length=70,
         model={"rope": ROPES["yarn-mscale"], "tied": True}),
    Case(name="yarn with a given attention factor", family="mistral", config_spelling=4,
         model={"rope": {**ROPES["yarn"], "attention_factor": 0.8}, "kv_heads": 4}),
    Case(name="mistral: a window shorter than the prompt", family="mistral", config_spelling=4,
         model={"sliding_window": 16, "dtype": "float16"}),
    Case(name="mistral: the answer outgrows the window", family="mistral", fmt="bin", prompt_length=10,
         model={"sliding_window": 24, "head_size": 8, "query_heads": 6, "kv_heads": 3}),
    Case(name="mistral: no window, from GGUF", family="mistral", fmt="gguf", model={"head_size": 32}),
    Case(name="qwen 2: biases of q, k and v, tied", family="qwen2", fmt="sharded", config_spelling=4,
         model={"tied": True, "dtype": "bfloat16"}),
    Case(name="qwen 2: a window from the second layer on", family="qwen2",
         model={"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    Case(name="qwen 2 from GGUF", family="qwen2", fmt="gguf", model={"tied": True, "dtype": "float16"}),
    Case(name="qwen 3: norms of q and k, heads wider than the hidden size", family="qwen3", fmt="sharded",
         model={"head_size": 32, "dtype": "float16"}, config_spelling=4),
    Case(name="qwen 3: biases, windows by layer, yarn", family="qwen3", fmt="bin",
         model={"attention_bias": True, "use_sliding_window": True, "sliding_window": 16, "rope": ROPES["yarn-mscale"],
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    Case(name="qwen 3 from GGUF", family="qwen3", fmt="gguf",
         model={"tied": True, "kv_heads": 4, "dtype": "bfloat16"}),
    Case(name="llama from GGUF, its scaling as factors", family="llama", fmt="gguf", prompt_length=90,
         model={"rope": ROPES["llama3"], "theta": 500000.0}),
    Case(name="llama from GGUF, yarn", family="llama", fmt="gguf", model={"rope": ROPES["yarn"], "tied": True}),
    Case(name="qwen 2 from GGUF, linear scaling", family="qwen2", fmt="gguf", model={"rope": ROPES["linear"]}),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_model_answers_as_transformers_answers(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: Theirs
) -> None:
    """64 greedy tokens are equal and every logit on the way is within 1e-3, whatever the nodes and the window."""
    model = build(case.family, seed=len(case.name), **case.model)
    words = np.random.Philox(key=case.prompt_length).random_raw(case.prompt_length)
    prompt_ids = [int(word % model.config["vocab_size"]) for word in words]
    expected = theirs.greedy(model, prompt_ids, length=LENGTH)
    assert expected.least_margin > LEAST_MARGIN, "a near tie proves nothing: another seed"
    fmt = readable(case.fmt)
    path = save(model, tmp_path / "model", fmt=fmt, config_spelling=case.config_spelling, tokenizer=False)
    streamed_on = 1 + 2 * (CASES.index(case) % 2)
    for world_size, tile_bytes in meshes_of(case):
        if world_size > 1:
            monkeypatch.setattr("common.model.sweep_size.MAX_ROWS", CHUNK_ROWS)
        with sliced(path, tmp_path / str(world_size), world_size=world_size, tile_bytes=tile_bytes) as ours:
            check_answer(ours, 2 if world_size == streamed_on else 0, prompt_ids, expected)


def meshes_of(case: Case) -> list[tuple[int, int | None]]:
    """Return on how many nodes, with tiles of how many bytes, a case is tried."""
    both: list[tuple[int, int | None]] = [(1, SEVERAL_TILES), (3, None)]
    return both if THOROUGH else [both[CASES.index(case) // 2 % 2]]


def check_answer(model: LocalModel, memory_window: int, prompt_ids: list[int], expected: Answer) -> None:
    """Compare one mesh's answer with the expected one."""
    sampler = RecordingSampler()
    with thread_mesh(model, memory_window=memory_window) as conversation:
        token_ids = run_alone(conversation, prompt_ids, length=LENGTH, sampler=sampler)
    place = f"{model.plan.world_size} nodes, window {memory_window}"
    assert token_ids == expected.token_ids, place
    assert np.abs(some_logits(sampler.logits) - expected.logits).max() < LOGIT_TOLERANCE, place
