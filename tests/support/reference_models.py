"""Models of which tests of whole programs know what transformers answers, without asking it themselves.

    model = save(SMALL.build(), directory)
    expected = SMALL.token_ids

Does not cover: asking (tests/golden/test_reference_models.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.model_tensors import RandomModel
from tests.support.random_models import build
from tests.support.transformers_answers import kept_answer

ANSWERED_IN = "golden/test_reference_models.json"
ANSWERED_BY = "test_a_model_of_whole_programs_has_an_answer"


@dataclass(frozen=True, kw_only=True)
class ReferenceModel:
    """How a random model is built, and what it is asked."""

    name: str
    settings: Mapping[str, Any]
    prompt: str
    length: int

    def build(self) -> RandomModel:
        """Return the model."""
        return build(**self.settings)

    @property
    def token_ids(self) -> list[int]:
        """Return the greedy answer of transformers."""
        return kept_answer(ANSWERED_IN, f"{ANSWERED_BY}[{self.name}]").token_ids


SMALL = ReferenceModel(
    name="14 MB, so that shipping it takes a second",
    settings={"hidden_size": 256, "intermediate_size": 1024, "layers": 3, "query_heads": 4, "kv_heads": 2,
              "vocab_size": 320},
    prompt="the devices of a house",
    length=12,
)  # fmt: skip
TWO = tuple(
    ReferenceModel(
        name=f"one of two, seed {seed}",
        settings={"seed": seed, "vocab_size": 320, "max_position_embeddings": 32768},
        prompt="1 2 3",
        length=32,
    )
    for seed in (1, 2)
)
REFERENCE_MODELS = (SMALL, *TWO)
