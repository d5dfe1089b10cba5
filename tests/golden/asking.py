"""Asks transformers what tests ask, keeps what it says, and names what is no longer said.

Covers: the answers of one run, written in the end; two sets of them compared.
Does not cover: the questions themselves (questions.py), reading what is kept (tests/support/transformers_answers.py).
"""

from __future__ import annotations

import copy
import importlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.transformers_answers import kept, numbers, write_kept

LOGIT_TOLERANCE = 1e-3
TOLERANCE = 1e-6
"""Of all other numbers that are no integers: sines, factors."""


class AskedAnswers:
    """Answers of transformers, here and now; see Source."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._questions = importlib.import_module("tests.golden.questions")  # torch and transformers: only now
        self._files: dict[str, dict[str, dict[str, Any]]] = {}

    def answer(self, file: str, case: str, words: str, question: str, arguments: tuple[Any, ...]) -> Any:
        """See Source. Raises: ValueError: the same words, and not the same answer: one of them needs a name."""
        answer = json.loads(json.dumps(getattr(self._questions, question)(*arguments)))
        said = self._files.setdefault(file, {}).setdefault(case, {})
        if said.setdefault(words, answer) != answer:
            raise ValueError(f"{case} asks {words} twice, and not of the same thing: give one of them a name")
        return copy.deepcopy(answer)

    def write(self) -> None:
        """Write every file of which a question was asked; answers to questions that nobody asks any more are gone."""
        for file, cases in self._files.items():
            write_kept(self._directory / file, cases)


def answer_differences(old: Path, new: Path) -> list[str]:
    """Name every question whose answer in one directory is not the one in the other, and those in one of them only."""
    found = []
    for file in sorted({path.relative_to(place) for place in (old, new) for path in place.rglob("*.json")}):
        ours, theirs = kept(old / file), kept(new / file)
        for case in sorted({*ours, *theirs}):
            here, there = ours.get(case, {}), theirs.get(case, {})
            for words in sorted({*here, *there}):
                place = f"{file}: {case}: {words}"
                if words not in there:
                    found.append(f"{place}: nobody asks this any more")
                elif words not in here:
                    found.append(f"{place}: is not kept")
                else:
                    found += [f"{place}: {line}" for line in _differences(here[words], there[words], "")]
    return found


def _differences(old: Any, new: Any, where: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        if "packed" in old:
            yield from _number_differences(old, new, where)
            return
        for key in old:
            yield from _differences(old[key], new[key], f"{where} {key}".strip())
    elif isinstance(old, float) and isinstance(new, float):
        limit = LOGIT_TOLERANCE if where == "least_margin" else TOLERANCE * max(1.0, abs(old))
        if not math.isclose(old, new, rel_tol=0, abs_tol=limit):
            yield f"{where} was {old} and is {new}"
    elif old != new:
        yield f"{where or 'the answer'} was {str(old)[:200]} and is {str(new)[:200]}"


def _number_differences(old: Any, new: Any, where: str) -> Iterator[str]:
    limit = LOGIT_TOLERANCE if where == "logits" else TOLERANCE
    before, after = numbers(old), numbers(new)
    if before.shape != after.shape:
        yield f"{where}: the shape was {before.shape} and is {after.shape}"
    elif (worst := float(np.abs(before - after).max(initial=0.0))) > limit:
        yield f"{where} differ by {worst:.2g}, more than {limit}"
