"""Are answers of transformers kept as they were given, and is each that it no longer gives named?

Does not cover: asking transformers (python -m tests.golden).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden.asking import answer_differences
from tests.support.transformers_answers import (
    LOGIT_STRIDE,
    KeptAnswers,
    Theirs,
    kept,
    numbers,
    packed,
    some_logits,
    write_kept,
)

LOGITS = np.linspace(-20, 20, 48, dtype=np.float32).reshape(4, 12)


def said(**changes: Any) -> dict[str, Any]:
    """Return an answer as `greedy` gives it."""
    return {"token_ids": [1, 2], "least_margin": 0.5, "logits": packed(LOGITS, step=2.0**-13), **changes}


def differences(tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what is named of two answers to one question."""
    for name, answer in (("old", old), ("new", new)):
        write_kept(tmp_path / name / "unit" / "test_it.json", {"case": {"greedy[1]": answer}})
    return answer_differences(tmp_path / "old", tmp_path / "new")


def test_arrays_come_back_as_they_were_or_to_the_nearest_step() -> None:
    """The same bits without a step; half a step away at most with one."""
    assert np.array_equal(numbers(packed(LOGITS)), LOGITS)
    assert np.abs(numbers(packed(LOGITS, step=2.0**-13)) - LOGITS).max() <= 2.0**-14


def test_every_logit_of_the_vocabulary_is_kept_once_in_four_tokens() -> None:
    """A row of the head that is wrong cannot hide behind those that are kept."""
    ids = np.arange(12, dtype=np.float32)[None].repeat(LOGIT_STRIDE, axis=0)
    assert sorted(some_logits(ids).flatten()) == list(range(12))


def test_answers_are_read_as_they_were_written_and_equal_ones_are_kept_once(tmp_path: Path) -> None:
    """By test and question."""
    path = tmp_path / "answers.json"
    cases = {"b": {"q": said()}, "a": {"q": said(), "r": [1, "é"]}}
    write_kept(path, cases)
    assert kept(path) == cases
    assert path.read_text(encoding="utf-8").count("least_margin") == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"token_ids": [1, 3]}, "token_ids was"),
        ({"token_ids": [1]}, "token_ids was"),
        ({"least_margin": 0.502}, "least_margin was 0.5 and is 0.502"),
        ({"logits": packed(LOGITS + np.float32(2e-3), step=2.0**-13)}, "logits differ by"),
        ({"logits": packed(LOGITS[:, :4], step=2.0**-13)}, "the shape was"),
        ({"text": "more"}, "the answer was"),
    ],
)
def test_an_answer_that_is_no_longer_given_is_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    """Tokens, ids and texts to the last one, logits by more than a thousandth."""
    (line,) = differences(tmp_path, said(), said(**changes))
    assert line.startswith("unit/test_it.json: case: greedy[1]: ")
    assert named in line


def test_what_differs_by_rounding_is_no_difference(tmp_path: Path) -> None:
    """Another processor adds in another order."""
    near = said(least_margin=0.5004, logits=packed(LOGITS + np.float32(5e-4), step=2.0**-13))
    assert differences(tmp_path, said(), near) == []


def test_questions_that_are_new_or_asked_no_more_are_named(tmp_path: Path) -> None:
    """Whoever changes a test makes its answers, too."""
    write_kept(tmp_path / "old" / "it.json", {"case": {"gone[]": 1}})
    write_kept(tmp_path / "new" / "it.json", {"case": {"new[]": 1}})
    gone, new = answer_differences(tmp_path / "old", tmp_path / "new")
    assert "gone[]: nobody asks this any more" in gone
    assert "new[]: is not kept" in new


def test_a_question_that_was_never_asked_says_what_to_do() -> None:
    """Instead of a KeyError."""
    theirs_of_nobody = Theirs(KeptAnswers(), "unit/no_such_file.json", "no such case")
    with pytest.raises(pytest.fail.Exception, match=r"never asked defaults.*run: make golden"):
        theirs_of_nobody.ask("defaults", "Llama", ["hidden_size"])
