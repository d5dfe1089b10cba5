"""What transformers says to the questions of a test: it lies in tests/golden/answers, or is asked now.

    def test_a_model_answers(theirs: Theirs) -> None:
        answer = theirs.greedy(model, prompt_ids, length=8)

`make golden` runs the tests that take the fixture `theirs`, asks transformers each question they ask (one function
for each in tests/golden/questions.py), and writes the answers. All other runs need neither torch nor transformers.
Does not cover: asking (tests/golden/asking.py), our own answers (mesh.py), making models (random_models.py).
"""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from common.weights.stored_numbers import Floats
from tests.support.model_tensors import RandomModel

ANSWERS = Path(__file__).resolve().parent.parent / "golden" / "answers"
LOGIT_STRIDE = 4
"""Of the logits that a token was taken from every fourth is kept, of the next token the ones beside: after four tokens
each row of the head has been seen."""
ABOUT = (Path, RandomModel)
"""What a question is about: no part of its words, under which the answer is kept."""


class Source(Protocol):
    """Where answers come from."""

    def answer(self, file: str, case: str, words: str, question: str, arguments: tuple[Any, ...]) -> Any:
        """Return the answer to a question of a test.

        Args: file, case: of the test. words: under which the answer is kept. question: the function that is asked.
        """


class KeptAnswers:
    """Answers as they are committed."""

    def answer(self, file: str, case: str, words: str, question: str, arguments: tuple[Any, ...]) -> Any:
        """See Source."""
        try:
            return copy.deepcopy(kept(ANSWERS / file)[case][words])
        except KeyError:
            pytest.fail(f"transformers was never asked {words} for {case}; run: make golden", pytrace=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Greedy tokens and some of the logits that each was taken from."""

    token_ids: list[int]
    logits: Floats
    """[token_count, vocab_size / LOGIT_STRIDE], see `some_logits`."""
    least_margin: float
    """By how much the chosen token led where it was closest; a tie could fall on either side."""


@dataclass(frozen=True, kw_only=True)
class TheirTokenizer:
    """What a tokenizer of transformers says to some texts; as far as they were asked for, it is used like one."""

    ids: Mapping[str, Mapping[bool, list[int]]]
    texts: Mapping[tuple[int, ...], str]
    token_ids: Mapping[str, int]
    """Of the tokens that were asked for."""
    size: int
    bos_token_id: int | None
    eos_token_id: int | None
    eos_token: str | None

    def __len__(self) -> int:
        return self.size

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return a text's ids."""
        return self.ids[text][add_special_tokens]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of ids that `encode` gave."""
        if not skip_special_tokens:
            raise ValueError("transformers was asked for texts without special tokens only")
        return self.texts[tuple(ids)]


class Theirs:
    """What one test asks transformers; the fixture `theirs` (tests/conftest.py)."""

    def __init__(self, source: Source, file: str, case: str) -> None:
        self._source, self._file, self._case = source, file, case

    def ask(self, question: str, *arguments: Any, name: str = "") -> Any:
        """Return the answer of a function of tests/golden/questions.py.

        Args: name: tells two questions of one test apart that have the same words and are about different things.
        """
        said = json.dumps([one for one in arguments if not isinstance(one, ABOUT)], ensure_ascii=False)
        if len(said) > 80:
            said = f"[{hashlib.sha256(said.encode()).hexdigest()[:12]}]"
        words = f"{question}{said}{f' of {name}' if name else ''}"
        return self._source.answer(self._file, self._case, words, question, arguments)

    def greedy(self, model: RandomModel, prompt_ids: Sequence[int], *, length: int) -> Answer:
        """Return the greedy answer of a model in float32, which goes on past end tokens."""
        return answer_of(self.ask("greedy", model, list(prompt_ids), length))

    def tokenizer(
        self, place: Path, texts: Sequence[str], *, tokens: Sequence[str] = (), change: str = "", name: str = ""
    ) -> TheirTokenizer:
        """Return what the tokenizer of a directory or a GGUF file says.

        Args: tokens: whose ids are wanted. change: see CHANGES in tests/golden/questions.py.
        """
        said = self.ask("tokenizer", place, list(texts), list(tokens), change, name=name)
        ids = {text: {True: one[0], False: one[1]} for text, one in zip(texts, said["ids"], strict=True)}
        pairs = zip(said["ids"], said["texts"], strict=True)
        return TheirTokenizer(
            ids=ids,
            texts={tuple(one): text for both in pairs for one, text in zip(*both, strict=True)},
            token_ids=dict(zip(tokens, said["tokens"], strict=True)),
            size=said["size"],
            bos_token_id=said["bos"],
            eos_token_id=said["eos"],
            eos_token=said["eos_token"],
        )


def answer_of(said: Mapping[str, Any]) -> Answer:
    """Return what the question `greedy` was answered."""
    return Answer(token_ids=said["token_ids"], logits=numbers(said["logits"]), least_margin=said["least_margin"])


def kept_answer(file: str, case: str) -> Answer:
    """Return the only greedy answer that was kept for a test of another file, for tests of whole programs."""
    (said,) = kept(ANSWERS / file)[case].values()
    return answer_of(said)


def some_logits(logits: Floats) -> Floats:
    """Return of [token_count, vocab_size] every fourth column: of row 0 from column 0 on, of row 1 from column 1."""
    wide = logits.shape[1] // LOGIT_STRIDE
    rows = [row[index % LOGIT_STRIDE :: LOGIT_STRIDE][:wide] for index, row in enumerate(logits)]
    return np.stack(rows)


@functools.cache
def kept(path: Path) -> dict[str, dict[str, Any]]:
    """Return a file's answers, by test and question."""
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    answers = document["answers"]
    return {case: {words: answers[key] for words, key in said.items()} for case, said in document["cases"].items()}


def write_kept(path: Path, cases: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a file of answers: equal ones once, each on a line of its own."""
    answers: dict[str, str] = {}
    keys: dict[str, dict[str, str]] = {}
    for case in sorted(cases):
        for words, answer in cases[case].items():
            text = json.dumps(answer, ensure_ascii=False)
            key = hashlib.sha256(text.encode()).hexdigest()[:12]
            answers[key] = text
            keys.setdefault(case, {})[words] = key
    said = [f"{json.dumps(case, ensure_ascii=False)}: {json.dumps(keys[case], ensure_ascii=False)}" for case in keys]
    lines = [f"{json.dumps(key)}: {text}" for key, text in sorted(answers.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = '{"cases": {\n' + ",\n".join(said) + '\n}, "answers": {\n' + ",\n".join(lines) + "\n}}\n"
    path.write_text(whole, encoding="utf-8")


def packed(values: Floats, *, step: float = 0.0) -> dict[str, Any]:
    """Return an array as JSON holds it; with a step, the nearest multiples of it."""
    scaled = np.round(np.asarray(values, np.float64) / step) if step else values
    data = np.ascontiguousarray(scaled, "<i4" if step else "<f4")
    planes = data.view(np.uint8).reshape(-1, 4).T.tobytes()  # like bytes beside each other take half the room
    return {"shape": list(data.shape), "step": step, "packed": base64.b64encode(zlib.compress(planes, 9)).decode()}


def numbers(said: Mapping[str, Any]) -> Floats:
    """Return an array that `packed` was given."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(said["packed"])), np.uint8)
    data = np.ascontiguousarray(planes.reshape(4, -1).T)
    step = said["step"]
    values = data.view("<i4") * np.float64(step) if step else data.view("<f4")
    found: Floats = values.reshape(said["shape"]).astype(np.float32)
    return found
