"""Does a GGUF file of any encoding give the tokens and logits that transformers gives on its dequantized weights?

Covers: small random models of random blocks, every encoding in turn and in mixtures, layers that are not alike, plain
matrices among them, cuts inside of superblocks, rows of queries and keys interleaved as llama's files have them; one to
five nodes, uniform and not, streamed and resident, prompts in chunks; three plans for each model with
SHARDMESH_THOROUGH=1 (.ci/run), otherwise two.
Does not cover: blocks' values (tests/unit/test_encodings.py), real files (test_smollm2.py, test_qwen2_coder.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.weights.model_encodings import AS_THE_FILE
from tests.golden.test_families import CHUNK_ROWS, LEAST_MARGIN, LENGTH, check_answer
from tests.support.gguf_models import write_gguf
from tests.support.mesh import sliced
from tests.support.random_blocks import encoded
from tests.support.random_models import build
from tests.support.thorough import THOROUGH
from tests.support.transformers_answers import Theirs

SUPERBLOCKS: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 768, "query_heads": 4, "kv_heads": 2, "head_size": 64, "layers": 2,
}  # fmt: skip
"""Inputs in whole superblocks, heads of a quarter of one: every plan of several nodes cuts some."""
NARROW: dict[str, Any] = {
    "hidden_size": 96, "intermediate_size": 160, "query_heads": 6, "kv_heads": 3, "head_size": 32, "layers": 3,
}  # fmt: skip
"""Inputs that no superblock fits, as in many files."""
SMALL_CELLS = 40_000
"""Bytes: several tiles a block."""
PLANS = ((1, "uniform", 2), (2, "uniform", 0), (3, "ratio:3,1,1", 2), (5, "uniform", 0), (1, "uniform", 0))
"""Nodes, strategy and memory window; several of them for each model."""
TURNS = 3 if THOROUGH else 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model: its family, and the encodings that its matrices take in turn."""

    encodings: tuple[str, ...]
    family: str = "llama"
    model: dict[str, Any] = field(default_factory=lambda: SUPERBLOCKS)

    @property
    def name(self) -> str:
        return f"{self.family} {' '.join(self.encodings)}"


CASES = (
    Case(encodings=("Q4_K", "Q6_K", "Q4_K", "Q4_K")),
    Case(encodings=("Q5_K", "Q6_K"), family="qwen3"),
    Case(encodings=("Q2_K", "Q3_K"), family="qwen2"),
    Case(encodings=("IQ4_XS",), model=SUPERBLOCKS | {"tied": True}),
    Case(encodings=("IQ4_NL", "Q5_K", "F16"), family="mistral"),
    Case(encodings=("Q5_0", "Q8_0", "Q5_1"), family="qwen2", model=NARROW),
    Case(encodings=("Q4_0", "Q4_1"), model=NARROW | {"tied": True}),
    Case(encodings=("Q8_0", "F32", "BF16"), family="qwen3", model=NARROW | {"attention_bias": True}),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_quantized_file_answers_as_transformers_answers(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: Theirs
) -> None:
    """64 greedy tokens are equal and every logit on the way is within 1e-3: nothing is rounded a second time."""
    plain = build(case.family, seed=len(case.name), **case.model)
    names = [name for name, tensor in plain.tensors.items() if tensor.ndim > 1]
    model, blocks = encoded(plain, lambda name: case.encodings[names.index(name) % len(case.encodings)])
    prompt_ids = [int(word % 320) for word in np.random.Philox(key=40).random_raw(40)]
    expected = theirs.greedy(model, prompt_ids, length=LENGTH)
    assert expected.least_margin > LEAST_MARGIN, "a near tie proves nothing: another seed"
    path = write_gguf(model, tmp_path / "model.gguf", blocks=blocks)
    first = CASES.index(case)
    for turn in range(TURNS):
        world_size, strategy, window = PLANS[(first + turn) % len(PLANS)]
        cells = SMALL_CELLS if turn == 1 else None
        slices = tmp_path / str(turn)
        with sliced(path, slices, world_size=world_size, strategy=strategy, tile_bytes=cells) as ours:
            assert ours.dtype == AS_THE_FILE
            check_answer(ours, window, prompt_ids, expected)
        monkeypatch.setattr("common.model.sweep_size.MAX_ROWS", CHUNK_ROWS)
