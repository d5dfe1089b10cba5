"""Does an answer whose tokens cannot be made text end in words, and alone?

Does not cover: tokenizers and their processes (test_tokenizer_apart.py), other ends (test_answers.py).
"""

from __future__ import annotations

import pytest

from common.errors import CheckpointError
from coordinator.answering.requests import Failed
from tests.support.fake_models import FakeModels, alone, answering, make_ask, text_of


def test_a_tokenizer_that_gives_up_in_the_middle_ends_that_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes may die of a token's text; whoever asked is told, and the next request is answered."""
    models = FakeModels("m")
    with answering(models) as answers:
        decode = models.tokenizer.decode

        def fail(ids: list[int]) -> str:
            raise CheckpointError("the tokenizer ends its process")

        with monkeypatch.context() as broken:
            broken.setattr(models.tokenizer, "decode", fail)
            last = list(answers.ask(make_ask("HELLO", length=50)))[-1]
        assert isinstance(last, Failed)
        assert isinstance(last.error, CheckpointError)
        assert models.tokenizer.decode == decode
        assert text_of(list(answers.ask(make_ask("HELLO", length=6)))) == alone("HELLO", 6)
