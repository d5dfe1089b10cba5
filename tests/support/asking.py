"""Asks a sliced model as programs do, by Ask and events, with requests that are in tokens already.

    with closing(Answers(Reopening(model, run), series)) as answers:
        events = list(asked(answers, model, [5, 6, 7], length=8))

Covers: a source of models that opens them again when their nodes were lost. Does not cover: text (tokens are letters).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.answer_stream import AnswerStream, Prepared
from coordinator.answering.answers import Answers
from coordinator.answering.model_source import OneModel, Told
from coordinator.answering.open_model import OpenModel, RunnableModel
from coordinator.answering.requests import Ask, Event, Failed, Token
from coordinator.answering.run_options import RunOptions
from coordinator.engine.sampler import Sampler, SamplingParams
from coordinator.engine.schedule import Schedule
from coordinator.engine.sequence import Sequence as TokenSequence

GREEDY = SamplingParams(temperature=0)


class Letters:
    """A tokenizer whose tokens are letters."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return a letter for each."""
        return "".join(chr(ord("a") + token_id % 26) for token_id in token_ids)


class Reopening(OneModel):
    """Nodes that run already, by address, as often as they are lost."""

    def __init__(self, model: RunnableModel, run: RunOptions, series: AnswerSeries) -> None:
        self._model, self._run, self._series = model, run, series
        self.opened: list[OpenModel] = []

    def open(self, model: RunnableModel, schedule: Schedule, told: Told, reach_seconds: float | None) -> OpenModel:
        """See ModelSource."""
        self.opened.append(OpenModel(self._model, self._run, None, self._series, told, schedule))
        return self.opened[-1]

    def may_be_back(self, model: RunnableModel) -> bool:
        """See ModelSource."""
        return True


def asked(
    answers: Answers, model: RunnableModel, prompt_ids: Sequence[int], *, length: int, sampler: Sampler | None = None,
    stop: tuple[str, ...] = (),
) -> AnswerStream:  # fmt: skip
    """Return an answer that goes on past end tokens; greedy without a sampler."""
    sequence = TokenSequence(
        sequence_id=0, prompt_ids=tuple(prompt_ids), max_new_tokens=length, eos_ids=frozenset(),
        sampler=sampler or Sampler(GREEDY, 0),
    )  # fmt: skip
    ask = Ask(sampling=GREEDY, seed=0, most_tokens=length, stop=stop)
    prepared = Prepared(model=model, sequence=sequence, tokenizer=Letters())  # type: ignore[arg-type] # decode is all
    return answers.answer(ask, prepared)


def tokens(events: Iterable[Event]) -> list[int]:
    """Return an answer's tokens. Raises: what it has failed with."""
    found = []
    for event in events:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Token):
            found.append(event.token_id)
    return found
