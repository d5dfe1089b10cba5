"""Every answer of one program: one engine, one thread, several answers in the same sweeps.

    ask -> prepared, in a thread of its own -> waits for its model -> engine -> events

Covers: opening a model when somebody asks for it, another model, ends of answers, ranks that are lost and come back.
Does not cover: protocols (cli/, program/), sweeps (engine/), which models there are and where (ModelSource).
Threads: one owns the open model and its engine; one prepares each Ask; callers put in an Ask and read its events.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from common.errors import NodeLost, ShardmeshError, SliceMismatch
from common.program.logs import entry
from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.answer_stream import AnswerStream, Ended, Prepared
from coordinator.answering.model_source import ModelSource
from coordinator.answering.open_model import OpenModel, RunnableModel
from coordinator.answering.request_series import MOST_ASKED
from coordinator.answering.requests import Ask, Notice, Reading
from coordinator.answering.under_way import UnderWay
from coordinator.engine.schedule import Cancelled, RanksLost, Schedule, State, Tell
from coordinator.engine.sequence import CANCELLED, ERROR, Sequence

END_SECONDS = 3.0
BACK_SECONDS = 1.5
"""How long nodes that were lost in the middle of an answer may take to be reached again: together with what it takes to
find out, below the five seconds in which whoever asked is told."""

log = logging.getLogger(__name__)


class Answers:
    """Runs requests. Close it."""

    def __init__(self, source: ModelSource, series: AnswerSeries, asked: UnderWay | None = None) -> None:
        self._source, self._series = source, series
        self._changed = threading.Condition()
        self._asked = asked or UnderWay(series.requests)
        self._arrived: deque[AnswerStream] = deque()
        self._withdrawn: deque[tuple[AnswerStream, str]] = deque()
        self._removed: set[str] = set()
        self._is_ending = False
        # From here on the engine's thread only.
        self._waiting: deque[AnswerStream] = deque()
        self._running: dict[int, AnswerStream] = {}
        self._opened: OpenModel | None = None
        self._model: RunnableModel | None = None
        self._next_sequence_id = 1
        self._sweeps_since_opening = self._sweeps_since_idle = 0
        self._preparing = ThreadPoolExecutor(MOST_ASKED, thread_name_prefix="prepare")
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def ask(self, ask: Ask) -> AnswerStream:
        """Take a request and return its answer, whose events begin once it is in tokens.

        Raises: QueueFull: too many are under way; NodeError: the program is ending.
        """
        stream = self._accepted(ask)
        try:
            self._preparing.submit(self._prepare, stream)
        except RuntimeError:  # it was shut down just now
            self._end(stream, "error", self._asked.closing())
        return stream

    def answer(self, ask: Ask, prepared: Prepared) -> AnswerStream:
        """Take a request that is in tokens already, and return its answer. Raises: as `ask`."""
        stream = self._accepted(ask)
        self._arrive(stream, prepared)
        return stream

    def let_go(self, name: str) -> None:
        """Send a node nothing more after the sweep under way: it was removed from the mesh."""
        with self._changed:
            self._removed.add(name)
            self._changed.notify()

    def drain(self, limit_seconds: float) -> None:
        """Take nothing new, and let what is under way come to its end; what has not by then ends with an error."""
        if not self._asked.drain(limit_seconds):
            self.close()

    def close(self) -> None:
        """End what runs with an error, and the threads; a round under way is broken off. May be called twice."""
        self._asked.refuse_new()
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._preparing.shutdown(wait=False, cancel_futures=True)
        opened = self._opened
        if opened is not None:
            opened.interrupt()
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():  # it waits for a node, and whoever asked does not have to
            for stream in self._asked.all():
                self._asked.end(stream, self._asked.closing())

    def _accepted(self, ask: Ask) -> AnswerStream:
        stream = AnswerStream(ask=ask, withdraw=self._withdraw)
        self._asked.add(stream)
        return stream

    def _withdraw(self, stream: AnswerStream, reason: str) -> None:
        stream.is_withdrawn = True
        with self._changed:
            self._withdrawn.append((stream, reason))
            self._changed.notify()

    def _prepare(self, stream: AnswerStream) -> None:
        """Turn a request into tokens. In a thread of its own: it may be slow and may fail."""
        try:
            prepared = self._source.prepare(stream.ask)
        except Exception as error:  # noqa: BLE001 - the thread's edge; whoever waits hears of it
            self._end(stream, "error", error)
            return
        self._arrive(stream, prepared)

    def _arrive(self, stream: AnswerStream, prepared: Prepared) -> None:
        stream.tallies = self._series.requests.of(prepared.model.name)
        stream.prepared = prepared
        stream.put(prepared)
        with self._changed:
            self._arrived.append(stream)
            self._changed.notify()

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._take_news()
                self._admit()
                self._step()
            except Exception as error:  # the thread's edge: whoever waits must hear of it, and the next request works
                if not isinstance(error, ShardmeshError):
                    log.exception("a sweep has failed")
                self._lost(error)
        self._close_model()
        for stream in self._asked.all():  # some may still be prepared, or never will be
            self._end(stream, "error", self._asked.closing())

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._arrived or self._withdrawn or self._removed or self._is_ending
                or self._running or self._waiting
            )  # fmt: skip
            return not self._is_ending

    def _take_news(self) -> None:
        """Take what came in since the last sweep. Raises: NoSuchNode: a node of the open model was removed."""
        with self._changed:
            self._waiting += self._arrived
            self._arrived.clear()
            withdrawn, self._withdrawn = self._withdrawn, deque()
            removed, self._removed = self._removed, set()
        for stream, reason in withdrawn:
            if stream in self._waiting:
                self._waiting.remove(stream)
                self._end(stream, reason)
            elif stream.prepared is not None and self._opened is not None:
                cancelled = Cancelled(sequence_id=stream.prepared.sequence.sequence_id, finish_reason=reason)
                self._tell(self._opened.engine.schedule.handle(cancelled))
        if self._model is not None and (gone := removed.intersection(self._model.node_names)):
            raise self._source.without_node(self._model, f"{min(gone)} was removed from the mesh")

    def _admit(self) -> None:
        """Hand what waits to the schedule; requests for another model when nothing runs."""
        while self._waiting and not self._is_ending:
            stream = self._waiting[0]
            assert stream.prepared is not None  # it arrived
            if self._running and stream.prepared.model != self._model:
                return
            if stream.is_withdrawn:
                self._waiting.popleft()
                self._end(stream, CANCELLED)
                continue
            try:
                opened = self._opened_for(stream.prepared.model)
            except Exception as error:  # noqa: BLE001 - the thread's edge, as above
                self._not_opened(stream.prepared.model, error)
                continue
            self._waiting.popleft()
            sequence = stream.prepared.sequence
            sequence.sequence_id, self._next_sequence_id = self._next_sequence_id, self._next_sequence_id + 1
            try:
                opened.engine.add(sequence)
            except ShardmeshError as error:  # not for this request
                self._end(stream, "error", error)
                continue
            self._running[sequence.sequence_id] = stream

    def _not_opened(self, model: RunnableModel, error: Exception) -> None:
        """End all who wait for a model that cannot be opened: each would wait for the same nodes again."""
        for stream in [one for one in self._waiting if one.prepared is not None and one.prepared.model == model]:
            self._waiting.remove(stream)
            self._end(stream, "error", error)

    def _opened_for(self, model: RunnableModel) -> OpenModel:
        if self._opened is None or model != self._model:
            self._close_model()
            self._open(model, Schedule(), None)
        assert self._opened is not None  # since just now, or before
        return self._opened

    def _open(self, model: RunnableModel, schedule: Schedule, reach_seconds: float | None) -> None:
        self._opened = self._source.open(model, schedule, self.notice, reach_seconds)
        self._model, self._sweeps_since_opening = model, 0
        self._opened.engine.reading.told = self._read
        if self._is_ending:  # `close` has found nothing open to break off
            raise self._asked.closing()
        self._tell(self._opened.engine.impossible)

    def _step(self) -> None:
        if self._opened is None:
            return
        self._tell(self._opened.engine.step())
        self._sweeps_since_opening += 1
        self._sweeps_since_idle += 1
        if not self._running:
            self._tell(self._opened.rest())
            self._sweeps_since_idle = 0

    def _tell(self, news: list[Tell]) -> None:
        now = time.perf_counter()
        for tell in news:
            sequence = tell.sequence
            stream = self._running.get(sequence.sequence_id)
            if stream is None or self._opened is None:
                continue
            if tell.token_id is not None:
                stream.count_token(now, is_first=len(sequence.generated_ids) == 1)
                stream.put(tell.token_id)
            if sequence.finish_reason == ERROR:
                self._end(stream, "error", tell.error)
            elif sequence.finish_reason is not None:
                self._end(stream, sequence.finish_reason)

    def _read(self, sequence: Sequence, read_count: int) -> None:
        stream = self._running.get(sequence.sequence_id)
        if stream is not None:
            stream.put(Reading(read_count=read_count, prompt_count=len(sequence.prompt_ids)))

    def notice(self, text: str) -> None:
        """Tell all who wait of a node that is slow. From any thread, such as the one that looks for them."""
        log.info("%s", entry("notice", text=text))
        for stream in [*self._running.values(), *self._waiting]:
            stream.put(Notice(text=text))

    def _end(self, stream: AnswerStream, outcome: str, error: Exception | None = None) -> None:
        """Tell a request how it ended, and forget it; nothing for one that has ended."""
        if stream.prepared is not None:
            self._running.pop(stream.prepared.sequence.sequence_id, None)
        memory = dict if self._opened is None else self._opened.memory
        self._asked.end(stream, error or Ended(reason=outcome, memory=memory))

    def _lost(self, error: Exception) -> None:
        """After an error ranks are of no more use: go on with others, where that may help, or end all that runs."""
        opened, model = self._opened, self._model
        if self._is_ending:
            error = self._asked.closing()  # what was broken off is nobody's fault
        # Before its first sweep after a rest nobody has waited yet: nodes may have been away for long, and come slowly.
        was_resting = self._sweeps_since_idle == 0
        self._close_model()
        if opened is not None and model is not None and self._is_worth_going_on(model, error):
            schedule = opened.engine.schedule
            schedule.handle(RanksLost())
            try:
                self._open(model, schedule, None if was_resting else BACK_SECONDS)
            except Exception as again:  # noqa: BLE001 - the thread's edge, as above
                self._close_model()
                error = again if was_resting else error
            else:
                self._went_on(error, schedule, was_resting=was_resting)
                return
        self._sweeps_since_idle = 0
        for stream in list(self._running.values()):
            self._end(stream, "error", error)

    def _is_worth_going_on(self, model: RunnableModel, error: Exception) -> bool:
        """Tell whether ranks that have worked before may be there again at once."""
        has_worked = self._sweeps_since_opening > 0 and isinstance(error, NodeLost | SliceMismatch)
        return has_worked and bool(self._running) and self._source.may_be_back(model)

    def _went_on(self, error: Exception, schedule: Schedule, *, was_resting: bool) -> None:
        log.warning("%s", entry("answers go on", requests=self._asked.names(), error=error))
        if not was_resting:
            self._series.requests.replayed.value += len(schedule.sequences(State.REPLAYING))
            self.notice(f"{error}; it is there again, and the answer goes on")

    def _close_model(self) -> None:
        opened, self._opened, self._model = self._opened, None, None
        self._series.sweeps.sequences.value = 0
        if opened is not None:
            opened.close()
