"""Which node does everybody wait for, much longer than such rounds took before? Says so while it happens.

    watch = SlowNodeWatch(names, told)
    watch.waiting_for(rank, key, since)   # before each answer is waited for
    watch.observe(rounds)                 # that are over

Covers: what is usual, what is slow, telling it once in a while. Does not cover: nodes that are gone (heartbeats, signs
of life), ends of rounds (round_limits.py). Threads: one that looks once a second; the engine's only takes notes.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from coordinator.ranks.round_limits import kind_of_round
from coordinator.ranks.round_table import Rounds

LOOK_SECONDS = 1.0
LOOKS = 3
"""That are judged together: three seconds."""
SLOW_SECONDS = 2.0
"""Of them, spent on one node; with the look that finds it, below the five seconds that we promise."""
SLOW_TIMES = 3.0
"""And so many times what whole rounds of the same kind took before."""
GROWTH = 1.04
"""What is usual may grow so much from one look to the next, or fall at once: after a minute slow is usual."""
TOLD_AGAIN_SECONDS = 30.0
SLOW_FOR_SECONDS = 6.0
"""A node that is found slow counts as slow for so long: what is judged anew after that takes half of it."""


@dataclass(kw_only=True)
class _Period:
    """What one look finds."""

    rounds: dict[Hashable, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0, 0.0]))
    """By kind of round: how many, and seconds in all."""
    waited: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds by rank: of the answers that were waited for one after another, how long for this one."""


@dataclass(frozen=True, kw_only=True)
class Slow:
    """A node that is slow."""

    rank: int
    waited_seconds: float
    """Of the time that was looked at, spent on it."""
    usual_seconds: float
    """What all rounds of that time used to take."""
    is_one_round: bool
    """Whether most of it goes to a single round that is not over yet; waited_seconds is of that one then."""


class SlowNodes:
    """What is usual and what is slow in one mesh. Pure: times are given, `look` is to be called every second."""

    def __init__(self) -> None:
        self._usual: dict[Hashable, float] = {}
        self._period = _Period()
        self._judged: deque[tuple[dict[int, float], float]] = deque(maxlen=LOOKS)

    def round_took(self, key: Hashable, waits: Iterable[tuple[int, float]], count: int = 1) -> None:
        """Note some rounds. Args: key: rounds of the same one take about the same; waits: (rank, seconds), of all."""
        period = self._period
        count_and_seconds = period.rounds[key]
        count_and_seconds[0] += count
        for rank, seconds in waits:
            period.waited[rank] += seconds
            count_and_seconds[1] += seconds

    def look(self, rank: int | None, key: Hashable, seconds: float) -> Slow | None:
        """Judge the last seconds. Args: whose answer is waited for now, to which kind of round, since how long."""
        period, self._period = self._period, _Period()
        expected = 0.0
        for kind, (count, total) in period.rounds.items():
            mean = total / count
            usual = self._usual.get(kind, mean)
            expected += count * usual
            self._usual[kind] = min(mean, usual * GROWTH)
        self._judged.append((period.waited, expected))
        waited: dict[int, float] = defaultdict(float)
        for one, _ in self._judged:
            for other, spent in one.items():
                waited[other] += spent
        usual_seconds = sum(one for _, one in self._judged)
        if rank is not None:
            waited[rank] += seconds
            usual_seconds += self._usual.get(key, 0.0)
        if not waited:
            return None
        slowest = max(waited, key=lambda one: waited[one])
        if waited[slowest] < max(SLOW_SECONDS, SLOW_TIMES * usual_seconds):
            return None
        self._judged.clear()
        is_one_round = slowest == rank and seconds > waited[slowest] / 2
        return Slow(
            rank=slowest, waited_seconds=seconds if is_one_round else waited[slowest], usual_seconds=usual_seconds,
            is_one_round=is_one_round,
        )  # fmt: skip


class SlowNodeWatch:
    """Looks every second, once it is started, and tells. Close it."""

    def __init__(
        self, names: Sequence[str], told: Callable[[str], None],
        noted: Callable[[int, bool], None] = lambda rank, is_slow: None,
    ) -> None:  # fmt: skip
        """Args: told: called with a sentence; noted: with a rank, when it becomes slow and when it is no more.

        Both from a thread of our own; `noted` is called for each rank at the beginning and the end.
        """
        self._names, self._told, self._noted = names, told, noted
        self._slow_at: dict[int, float] = {}
        self._nodes = SlowNodes()
        self._waiting: tuple[int, Hashable, float] | None = None
        self._told_at: dict[int, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="slow-node-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        for rank in range(len(self._names)):
            self._noted(rank, False)
        self._thread.start()

    def waiting_for(self, rank: int, key: Hashable, since: float) -> None:
        """Note whose answer is waited for, and since when (time.perf_counter)."""
        self._waiting = (rank, key, since)

    def observe(self, rounds: Rounds) -> None:
        """Note rounds that are over."""
        for sums in rounds.sums():
            waits = zip(sums.ranks, sums.wait_seconds, strict=True)
            self._nodes.round_took(kind_of_round(sums.kind, sums.row_count), waits, len(sums.waited_seconds))
        for record in rounds.single():
            self._nodes.round_took(kind_of_round(record.kind, record.row_count), record.waits())

    def idle(self) -> None:
        """Note that nothing is waited for."""
        self._waiting = None

    def close(self) -> None:
        """End the looking. May be called twice, and without start."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()
        self.note(None, float("inf"))

    def _watch(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            rank, key, since = self._waiting or (None, None, 0.0)
            now = time.perf_counter()
            slow = self._nodes.look(rank, key, now - since)
            self.note(slow, now)
            if slow is not None and now - self._told_at.get(slow.rank, -TOLD_AGAIN_SECONDS) >= TOLD_AGAIN_SECONDS:
                self._told_at[slow.rank] = now
                self._told(sentence(self._names[slow.rank], slow))

    def note(self, slow: Slow | None, now: float) -> None:
        """Note what a look has found, and the ranks that were not found slow for a while."""
        if slow is not None:
            self._slow_at[slow.rank] = now
            self._noted(slow.rank, True)
        for rank in [one for one, at in self._slow_at.items() if now - at > SLOW_FOR_SECONDS]:
            del self._slow_at[rank]
            self._noted(rank, False)


def sentence(name: str, slow: Slow) -> str:
    """Return what a person is told of a slow node."""
    if slow.is_one_round:
        return f"waiting for {name}: no answer to a round for {slow.waited_seconds:.1f} s so far"
    times = slow.waited_seconds / max(slow.usual_seconds, 1e-3)
    return (f"{name} is slow: {slow.waited_seconds:.1f} of the last seconds went by waiting for it, {times:.0f} times "
            "as long as such rounds took before")  # fmt: skip
