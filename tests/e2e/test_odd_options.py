"""What happens to options that are odd but lawful, up to the ends of their ranges? An answer, made of numbers.

Does not cover: options that cannot be right (test_wrong_options.py), each against each (tests/unit/test_sampler.py).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import RunHere

GREEDY = ("--temperature", "0")
LIKE_GREEDY = [
    ("--temperature", "-0.0"),
    ("--temperature", "1e-46"),
    ("--temperature", "1e-400"),
    ("--temperature", "1e-40"),
    ("--k", "1"),
    ("--p", "1e-300"),
]
OTHERS = [
    ("--temperature", "1.7e308"),
    ("--temperature", "1e39", "--p", "1"),
    ("--k", "99999999999999999999"),
    ("--p", "0.9999999999999999"),
    ("--seed", "18446744073709551615"),
    ("--seed", "-9223372036854775808"),
    ("--stop", "\u00e9" * 5000),
]


def answer(here: RunHere, model: Path, nodes: str, *options: str) -> dict[str, Any]:
    """Return the document of an answer that came without a word on stderr; none of its numbers is no number."""
    finished = here(
        "coordinator-cli", "generate", "--model", str(model), "--nodes", nodes, "--prompt", "hi", "--length", "6",
        "--ignore-eos", "--json", *options,
    )  # fmt: skip
    assert (finished.code, finished.err) == (0, "")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in {finished.out}")

    document: dict[str, Any] = json.loads(finished.out, parse_constant=refuse)
    return document


@pytest.fixture(scope="module")
def greedy() -> list[int]:
    """Return what greedy answers have, once the first test has asked for one."""
    return []


@pytest.mark.parametrize("options", LIKE_GREEDY, ids=" ".join)
def test_an_option_that_leaves_one_choice_is_greedy(
    here: RunHere, sliced_once: Path, serving: str, greedy: list[int], options: tuple[str, ...]
) -> None:
    """However small the number that says so."""
    if not greedy:
        greedy += answer(here, sliced_once, serving, *GREEDY)["token_ids"]
    assert answer(here, sliced_once, serving, *options)["token_ids"] == greedy


@pytest.mark.parametrize("options", OTHERS, ids=[option[0] for option in OTHERS])
def test_an_option_at_the_end_of_its_range_is_answered(
    here: RunHere, sliced_once: Path, serving: str, options: tuple[str, ...]
) -> None:
    """As many tokens as were asked for, and the same ones again."""
    found = answer(here, sliced_once, serving, *options)
    assert len(found["token_ids"]) == 6
    assert found["token_ids"] == answer(here, sliced_once, serving, *options)["token_ids"]


def test_an_answer_of_one_token_has_a_report_of_numbers(here: RunHere, sliced_once: Path, serving: str) -> None:
    """There is no time from one token to the next then."""
    found = answer(here, sliced_once, serving, "--length", "1")
    assert len(found["token_ids"]) == 1
    assert found["timings"]["seconds_per_token"] == []
    assert math.isfinite(found["timings"]["tokens_per_second"])
