"""Does transformers have an answer to what tests of whole programs ask their models, and no near tie on its way?

Does not cover: our answers (tests/e2e).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.tokenizer import load_tokenizer
from tests.support.random_models import save
from tests.support.reference_models import REFERENCE_MODELS, ReferenceModel
from tests.support.transformers_answers import Theirs

LEAST_MARGIN = 1e-3


@pytest.mark.parametrize("reference", REFERENCE_MODELS, ids=lambda reference: reference.name)
def test_a_model_of_whole_programs_has_an_answer(reference: ReferenceModel, tmp_path: Path, theirs: Theirs) -> None:
    """The tests that start programs read this answer, and never ask."""
    model = reference.build()
    prompt_ids = load_tokenizer(save(model, tmp_path)).encode(reference.prompt)
    answer = theirs.greedy(model, prompt_ids, length=reference.length)
    assert answer.least_margin > LEAST_MARGIN
