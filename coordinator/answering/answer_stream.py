"""One answer on its way to whoever asked: tokens become text, in the asker's own thread.

Covers: the order of events, stop texts, memory of all processes at the end. Does not cover: making tokens (answers.py).
Threads: the engine's puts in, one asker's takes out.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.errors import ModelError, ShardmeshError
from coordinator.answering.requests import Ask, Event, Failed, Finished, Notice, Reading, Started, Token
from coordinator.answering.text_stream import TextStream
from coordinator.engine.sequence import CANCELLED, LENGTH, STOP, Sequence
from coordinator.engine.timings import Timings

if TYPE_CHECKING:
    from coordinator.answering.open_model import RunnableModel
    from coordinator.answering.request_series import ModelTallies
    from coordinator.tokenizer import Tokenizer

Memory = Callable[[], dict[str, dict[str, int]]]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request in tokens."""

    model: RunnableModel
    sequence: Sequence
    tokenizer: Tokenizer
    tokenizer_bytes: Callable[[], int] = int
    """Memory of the tokenizer's processes."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The engine has done with a request."""

    reason: str
    memory: Memory
    """Asks every node; the engine's thread has better to do."""


@dataclass(kw_only=True, eq=False)
class AnswerStream:
    """Iterate over it once; `cancel` it from any thread."""

    ask: Ask
    withdraw: Callable[[AnswerStream, str], None]
    """Tells the engine to end it, and with which reason."""
    prepared: Prepared | None = None
    tallies: ModelTallies | None = None
    """What its times are counted in; with `prepared`."""
    timings: Timings = field(default_factory=Timings)
    is_withdrawn: bool = False
    asked_at: float = field(default_factory=time.perf_counter)
    last_at: float = 0.0
    """When its last token came; before the first, when it was asked."""
    put: Callable[[Prepared | int | Notice | Reading | Ended | Exception], None] = field(init=False)
    """What the engine's thread, and before it the preparing one, have to say."""

    def __post_init__(self) -> None:
        self._news: queue.SimpleQueue[Prepared | int | Notice | Reading | Ended | Exception] = queue.SimpleQueue()
        self.put = self._news.put
        self.last_at = self.asked_at

    @property
    def model_name(self) -> str:
        """Of the model that answers; empty while it is not known whether there is one."""
        return "" if self.prepared is None else self.prepared.model.name

    @property
    def is_running(self) -> bool:
        """Whether nodes have rows of it, or had."""
        return self.prepared is not None and self.prepared.sequence.begun_at is not None

    def count_token(self, now: float, *, is_first: bool) -> None:
        """Note how long a token took. In the engine's thread."""
        assert self.prepared is not None  # it arrived
        assert self.tallies is not None  # with it
        seconds, self.last_at = now - self.last_at, now
        self.tallies.generation_tokens.value += 1
        if is_first:
            begun_at = self.prepared.sequence.begun_at or self.asked_at
            self.timings.ttft_seconds = seconds
            self.tallies.first_token.observe(seconds)
            self.tallies.queue.observe(begun_at - self.asked_at)
            self.tallies.prefill.observe(now - begun_at)
        else:
            self.timings.seconds_per_token.append(seconds)
            self.tallies.between_tokens.observe(seconds)

    def count_end(self, reason: str) -> None:
        """Note how long an answer took, if it is complete. In the engine's thread."""
        if self.tallies is not None and reason in (STOP, LENGTH):
            self.tallies.decode.observe(sum(self.timings.seconds_per_token))
            self.tallies.whole.observe(self.timings.total_seconds)

    @property
    def token_count(self) -> int:
        """Return how many tokens the answer has so far. From any thread."""
        return 0 if self.prepared is None else len(self.prepared.sequence.generated_ids)

    def cancel(self) -> None:
        """End it within a sweep."""
        self.withdraw(self, "cancelled")

    def __iter__(self) -> Iterator[Event]:
        """Yield events as they come; the last one is Finished or Failed."""
        try:
            yield from self._events()
        except ModelError as error:  # the tokenizer's processes cannot make text of the tokens
            self.withdraw(self, CANCELLED)
            yield Failed(error=error)

    def _events(self) -> Iterator[Event]:
        text: TextStream | None = None
        is_stopped = False
        while True:
            news = self._news.get()
            if isinstance(news, Prepared):
                sequence = news.sequence
                text = TextStream(news.tokenizer, sequence.prompt_ids, self.ask.stop)
                yield Started(model=news.model.name, prompt_token_ids=sequence.prompt_ids)
            elif isinstance(news, Notice | Reading):
                yield news
            elif isinstance(news, Exception):
                # What went wrong after a stop text took nothing from the answer.
                yield Finished(reason=STOP, text="", timings=self.timings) if is_stopped else Failed(error=news)
                return
            elif isinstance(news, Ended):
                rest = "" if text is None else text.finish()
                reason = STOP if text is not None and text.is_stopped else news.reason
                yield Finished(reason=reason, text=rest, timings=self.timings, memory=self._asked(news.memory))
                return
            elif text is not None and not is_stopped:  # tokens that were on their way when it stopped are nobody's
                piece = text.push(news)
                if is_stopped := text.is_stopped:
                    self.withdraw(self, STOP)
                # Each is there before its token is told.
                likelihoods = sequence.likelihoods.popleft() if sequence.likelihoods else None
                yield Token(token_id=news, text=piece, likelihoods=likelihoods)

    def _asked(self, memory: Memory) -> dict[str, dict[str, int]]:
        try:
            asked = memory()
        except (
            ShardmeshError,
            ValueError,
        ):  # the answer is complete in any case; ValueError: the channels were closed meanwhile
            return {}
        if self.prepared is not None and (apart := self.prepared.tokenizer_bytes()):
            asked.get("coordinator", {})["tokenizer_bytes"] = apart
        return asked
