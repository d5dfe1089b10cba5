"""Whose turn is it, what is opened and closed, and who is told what: the state of every request. Pure.

    event in, what to tell out       Arrived, Cancelled, SweepDone, RanksLost, RanksBack -> Tell
    between sweeps                   next_run() -> Run: sequences to close, to open, and the rows of a sweep

    WAITING -> RUNNING -> FINISHED   and  RUNNING -> REPLAYING -> RUNNING  when the ranks were lost and are back

Covers: admission by the ledger, strictly in order of arrival, so that none starves; replay, which is nothing but a
computed count that starts at 0 again. Does not cover: rows (batch.py), room (ledger.py), running a sweep (engine.py).
Rule: a sequence is opened by the first run that has rows of it, and closed by the next run after its end.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from common.errors import ProtocolError, ShardmeshError
from coordinator.engine.batch import BatchPart, next_batch
from coordinator.engine.ledger import KvLedger
from coordinator.engine.sequence import CANCELLED, ERROR, Sequence


class State(enum.Enum):
    """Where a request stands."""

    WAITING = enum.auto()
    """For room."""
    RUNNING = enum.auto()
    """It has room on every rank."""
    REPLAYING = enum.auto()
    """Its ranks were lost; what was computed there has to be computed again, on whichever come back."""
    FINISHED = enum.auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrived:
    """Somebody asks."""

    sequence: Sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancelled:
    """Somebody wants no more, or has seen enough."""

    sequence_id: int
    finish_reason: str = CANCELLED


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepDone:
    """The run under way is over."""

    predicted: Mapping[int, int]
    """By sequence: the next token of each that was due one."""
    spoiled: Mapping[int, Exception] = field(default_factory=dict)
    """By sequence: what went wrong for it and for no other: a rank refuses it, its sampler raises."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RanksLost:
    """All that was computed is gone, and a run under way too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RanksBack:
    """There are ranks, the same or others; they hold nothing yet."""

    ledger: KvLedger


Event = Arrived | Cancelled | SweepDone | RanksLost | RanksBack


@dataclass(frozen=True, kw_only=True, slots=True)
class Tell:
    """News for whoever asked: a token, an end, or both; `sequence.finish_reason` says whether and how it ended."""

    sequence: Sequence
    token_id: int | None = None
    error: Exception | None = None
    """Why it ended, if with ERROR."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One sweep; without rows only a message that sequences have ended."""

    closes: tuple[int, ...]
    opens: tuple[Sequence, ...]
    parts: tuple[BatchPart, ...]


@dataclass(kw_only=True)
class _Request:
    sequence: Sequence
    state: State = State.WAITING
    is_open: bool = False
    """Whether the ranks have heard of it."""


class Schedule:
    """All requests for one model."""

    def __init__(self) -> None:
        self._requests: dict[int, _Request] = {}  # by id, in order of arrival; finished ones are not here
        self._closes: list[int] = []
        self._ledger: KvLedger | None = None
        self._run: Run | None = None

    def handle(self, event: Event) -> list[Tell]:
        """Take an event and return what is to be told, in order. Raises: ProtocolError: it cannot be now."""
        match event:
            case Arrived():
                return self._arrived(event.sequence)
            case Cancelled():
                request = self._requests.get(event.sequence_id)
                return [] if request is None else [self._finish(request, event.finish_reason)]
            case SweepDone():
                return self._sweep_done(event)
            case RanksLost():
                self._ranks_lost()
                return []
            case RanksBack():
                self._ledger = event.ledger
                return self._impossible(list(self._requests.values()))

    def next_run(self, most_rows: int) -> Run | None:
        """Admit what fits and return the next sweep, of at most so many rows; None when there is nothing to do."""
        if self._run is not None:
            raise ProtocolError("a sweep is under way")
        if self._ledger is None:
            return None
        self._admit(self._ledger)
        parts = tuple(next_batch((request.sequence for request in self._running()), most_rows))
        opening = [request for request in (self._requests[part.sequence.sequence_id] for part in parts)
                   if not request.is_open]  # fmt: skip
        for request in opening:
            request.is_open = True
        closes, self._closes = tuple(self._closes), []
        if not parts and not closes:
            return None
        run = Run(closes=closes, opens=tuple(request.sequence for request in opening), parts=parts)
        self._run = run if parts else None
        return run

    def room_taken(self) -> float:
        """Return how much of its room is reserved on the fullest rank, from 0 to 1. From any thread."""
        ledger = self._ledger
        return 0.0 if ledger is None else ledger.usage_ratio

    def state_of(self, sequence_id: int) -> State:
        """Return where a request stands; FINISHED for one that is not known, or no more."""
        request = self._requests.get(sequence_id)
        return State.FINISHED if request is None else request.state

    def sequences(self, *states: State) -> list[Sequence]:
        """Return the requests in some states, in order of arrival; without arguments, all that are not finished."""
        return [one.sequence for one in self._requests.values() if not states or one.state in states]

    def _arrived(self, sequence: Sequence) -> list[Tell]:
        if sequence.sequence_id in self._requests:
            raise ProtocolError(f"sequence {sequence.sequence_id} is there already")
        request = self._requests[sequence.sequence_id] = _Request(sequence=sequence)
        return self._impossible([request])

    def _impossible(self, requests: Iterable[_Request]) -> list[Tell]:
        """End requests that would not fit ranks which hold nothing else."""
        told = []
        for request in requests:
            try:
                if self._ledger is not None:
                    self._ledger.check_possible(request.sequence.position_capacity)
            except ShardmeshError as error:
                told.append(self._finish(request, ERROR, error))
        return told

    def _admit(self, ledger: KvLedger) -> None:
        """Give room in order of arrival; whoever does not fit waits, and all behind it."""
        for request in self._requests.values():
            sequence = request.sequence
            if not ledger.holds(sequence.sequence_id):
                if not ledger.reserve(sequence.sequence_id, sequence.position_capacity):
                    return
                if request.state is State.WAITING:
                    request.state = State.RUNNING

    def _has_room(self, request: _Request) -> bool:
        return self._ledger is not None and self._ledger.holds(request.sequence.sequence_id)

    def _running(self) -> list[_Request]:
        return [request for request in self._requests.values() if self._has_room(request)]

    def _sweep_done(self, done: SweepDone) -> list[Tell]:
        if self._run is None:
            raise ProtocolError("no sweep is under way")
        run, self._run = self._run, None
        told = []
        for part in run.parts:
            request = self._requests.get(part.sequence.sequence_id)
            if request is None:
                continue  # it ended meanwhile
            sequence = request.sequence
            if sequence.sequence_id in done.spoiled:
                told.append(self._finish(request, ERROR, done.spoiled[sequence.sequence_id]))
                continue
            sequence.computed_count = part.first_position + len(part.token_ids)
            if request.state is State.REPLAYING and not sequence.is_behind:
                request.state = State.RUNNING
            if sequence.sequence_id in done.predicted:
                token_id = done.predicted[sequence.sequence_id]
                sequence.append(token_id)
                if sequence.finish_reason is not None:
                    self._forget(request)
                told.append(Tell(sequence=sequence, token_id=token_id))
        if done.spoiled:  # a sweep that lost all its rows has not told every rank what it was to close
            self._closes += run.closes
        return told

    def _finish(self, request: _Request, reason: str, error: Exception | None = None) -> Tell:
        request.sequence.finish_reason = reason
        self._forget(request)
        return Tell(sequence=request.sequence, error=error)

    def _forget(self, request: _Request) -> None:
        sequence_id = request.sequence.sequence_id
        request.state = State.FINISHED
        del self._requests[sequence_id]
        if self._ledger is not None:
            self._ledger.release(sequence_id)
        if request.is_open:
            self._closes.append(sequence_id)

    def _ranks_lost(self) -> None:
        self._ledger = self._run = None
        self._closes.clear()
        for request in self._requests.values():
            if request.state is State.RUNNING:
                request.state = State.REPLAYING
            request.sequence.computed_count = 0
            request.is_open = False
