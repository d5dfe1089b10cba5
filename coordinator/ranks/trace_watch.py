"""Writes down every round and every sweep for whoever traces; nobody pays while nobody does.

    ranks.observers.append(watch.observer("tiny", ["kitchen", "attic"]))
    engine.swept.append(watch.swept)
    with watch.listen() as listening:     # from any thread
        listening.take()                  # sweeps that are over since the last take

Covers: rounds to their sweeps, listeners that are too slow. Does not cover: messages (coordinator/program/tracing.py),
files (coordinator/cli/trace_file.py). Threads: the engine's observes, any listens.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # numpy comes with them, which a coordinator without a model has no use for
    from coordinator.ranks.round_record import RoundRecord
    from coordinator.ranks.sweep import Swept

MOST_SWEEPS = 1000
"""That wait for one listener: half a minute of a fast model."""
MOST_ROUNDS = 20_000
"""Of one sweep; a long prompt on a large model has a tenth of them."""


class TracedSweep(NamedTuple):
    """A sweep with all its rounds."""

    model: str
    names: Sequence[str]
    """Of nodes, by rank."""
    rounds: Sequence[RoundRecord]
    swept: Swept | None
    """None: it was not over."""


class Listening:
    """What one listener has not taken yet."""

    def __init__(self, wants: Callable[[Swept], bool], came: threading.Event | None = None) -> None:
        """Args: wants: whether a sweep is to be kept, called in the engine's thread; came: is set with each one."""
        self.wants, self._came = wants, came
        self.dropped_count = 0
        self._sweeps: deque[TracedSweep] = deque()

    def put(self, sweep: TracedSweep) -> None:
        """Keep a sweep, or count it where nobody takes any."""
        if len(self._sweeps) < MOST_SWEEPS:
            self._sweeps.append(sweep)
        else:
            self.dropped_count += 1
        if self._came is not None:
            self._came.set()

    def take(self) -> list[TracedSweep]:
        """Return the sweeps since the last time."""
        taken = []
        while self._sweeps:
            taken.append(self._sweeps.popleft())
        return taken


class TraceWatch:
    """Hands sweeps to those who listen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Listening, ...] = ()
        self._model, self._names = "", tuple[str, ...]()
        self._rounds: list[RoundRecord] = []

    def observer(self, model: str, names: Sequence[str]) -> Callable[[Iterable[RoundRecord]], None]:
        """Return what is to be called with the rounds of ranks that were opened. Args: names: of nodes, by rank."""
        self._model, self._names, self._rounds = model, tuple(names), []

        def observe(rounds: Iterable[RoundRecord]) -> None:
            if self._listeners:
                self._rounds.extend(islice(rounds, MOST_ROUNDS - len(self._rounds)))

        return observe

    def swept(self, swept: Swept) -> None:
        """Take a sweep that is over, with all its rounds."""
        listeners = self._listeners
        if not listeners:
            if self._rounds:  # of when somebody listened
                self._rounds = []
            return
        rounds, self._rounds = self._rounds, []
        wanting = [listening for listening in listeners if listening.wants(swept)]
        if wanting:
            sweep = TracedSweep(self._model, self._names, _of(rounds, swept.sweep_id), swept)
            for listening in wanting:
                listening.put(sweep)

    @contextmanager
    def listen(
        self, wants: Callable[[Swept], bool] = lambda swept: True, came: threading.Event | None = None
    ) -> Iterator[Listening]:
        """Yield what takes the sweeps from now on. Args: wants, came: as of Listening."""
        listening = Listening(wants, came)
        with self._lock:
            self._listeners = (*self._listeners, listening)
        try:
            yield listening
        finally:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listening)

    def under_way(self) -> TracedSweep | None:
        """Return the sweep that is not over, as far as it has come; None: there is none."""
        rounds = list(self._rounds)
        if not rounds:
            return None
        return TracedSweep(self._model, self._names, _of(rounds, rounds[-1].sweep_id), None)


def _of(rounds: Sequence[RoundRecord], sweep_id: int) -> list[RoundRecord]:
    """Return the rounds of one sweep: those of one that broke off lie before them."""
    return [record for record in rounds if record.sweep_id == sweep_id]
