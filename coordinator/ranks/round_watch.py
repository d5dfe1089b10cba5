"""How long did each node take lately, and whose answer came last? For who looks on; nobody pays while nobody does.

    ranks.observers.append(watch.observer("tiny", ["kitchen", "attic"]))
    watch.look(time.perf_counter())      # from now on rounds are counted, for WATCHED_SECONDS after each look

Covers: sums of the last seconds, by the names of nodes. Does not cover: series (round_metrics.py), nodes that have
become slow (slow_nodes.py), who looks (coordinator/program/overview.py).
Threads: the engine's observes, any looks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy comes with it, which a coordinator without a model has no use for
    from coordinator.ranks.round_record import RoundRecord

KEPT_SECONDS = 10
WATCHED_SECONDS = 15.0
"""So long after a look somebody counts as looking on."""


@dataclass(slots=True)
class NodeRounds:
    """The rounds of one node."""

    round_count: int = 0
    seconds: float = 0.0
    """From the first byte sent to its answer, all rounds together."""
    last_count: int = 0
    """Of these rounds, how many had to wait for its answer last."""


@dataclass(frozen=True, kw_only=True)
class LatelyRounds:
    """What was counted."""

    nodes: Mapping[str, NodeRounds]
    round_count: int
    seconds: float
    """Of the time that is covered; 0 while nothing is."""


@dataclass(slots=True)
class _Second:
    number: int
    round_count: int = 0
    nodes: dict[str, NodeRounds] = field(default_factory=dict)


class RoundWatch:
    """Sums by second."""

    def __init__(self) -> None:
        self.model = ""
        """Whose rounds they are, or were last."""
        self._lock = threading.Lock()
        self._watched_until = self._watched_since = 0.0
        self._seconds: deque[_Second] = deque(maxlen=KEPT_SECONDS + 1)

    def observer(self, model: str, names: Sequence[str]) -> Callable[[Iterable[RoundRecord]], None]:
        """Return what is to be called with the rounds of ranks that were opened. Args: names: of nodes, by rank."""
        self.model = model

        def observe(rounds: Iterable[RoundRecord]) -> None:
            for record in rounds:
                if record.finished >= self._watched_until:
                    return  # nobody looks on, nor at later ones
                self._count(record, names)

        return observe

    def look(self, now: float) -> LatelyRounds:
        """Return what the last seconds had. Args: now: time.perf_counter."""
        nodes: dict[str, NodeRounds] = {}
        round_count = 0
        with self._lock:
            if now >= self._watched_until:
                self._watched_since = now
                self._seconds.clear()
            self._watched_until = now + WATCHED_SECONDS
            for second in self._seconds:
                if second.number < int(now) - KEPT_SECONDS:
                    continue
                round_count += second.round_count
                for name, rounds in second.nodes.items():
                    total = nodes.setdefault(name, NodeRounds())
                    total.round_count += rounds.round_count
                    total.seconds += rounds.seconds
                    total.last_count += rounds.last_count
        covered = min(now - self._watched_since, KEPT_SECONDS + now % 1.0)
        return LatelyRounds(nodes=nodes, round_count=round_count, seconds=covered)

    def _count(self, record: RoundRecord, names: Sequence[str]) -> None:
        number = int(record.finished)
        with self._lock:
            if not self._seconds or self._seconds[-1].number != number:
                self._seconds.append(_Second(number))
            second = self._seconds[-1]
            second.round_count += 1
            for part in record.parts:
                rounds = second.nodes.setdefault(names[part.rank], NodeRounds())
                rounds.round_count += 1
                rounds.seconds += part.arrived - record.started
            rounds.last_count += 1  # they are in the order in which answers came
