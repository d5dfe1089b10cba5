"""The sessions of all ranks: who is sent what, whose answer is waited for, whom a failure is counted against.

Covers: asking several at once where their transport can (transports/exchange.py), one after another where not.
Does not cover: what is in messages and answers (ranks.py), what is usual and slow (slow_nodes.py).
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence

from common.errors import ShardmeshError
from coordinator.ranks.past_rounds import PastRounds
from coordinator.ranks.round_series import RoundSeries
from coordinator.ranks.slow_nodes import SlowNodeWatch
from coordinator.ranks.transports.exchange import Group, group_of
from coordinator.ranks.transports.transport import Arrived, ShardClient, answer_to


class RankSessions:
    """One session with every rank, in their order."""

    def __init__(
        self, clients: Sequence[ShardClient], node_names: Sequence[str], series: RoundSeries, slowness: SlowNodeWatch,
        past: PastRounds,
    ) -> None:  # fmt: skip
        """Args: node_names: as series call them; slowness: is told whose answer is waited for; past: what is passed on
        before a failure is raised.
        """
        self._clients, self._node_names, self._series = clients, node_names, series
        self._slowness, self._past = slowness, past
        self._groups: dict[tuple[int, ...], Group | None] = {}

    def submit(self, rank: int, message: bytes, files: Sequence[int] = ()) -> None:
        """Send one rank a message. Raises: NodeError."""
        try:
            self._clients[rank].submit(message, files)
        except ShardmeshError as error:
            raise self.counted(rank, error) from error.__cause__

    def ask(self, ranks: tuple[int, ...], message: bytes, of_a_kind: Hashable, *, is_all: bool) -> float:
        """Send ranks their message of a round; return when that was done (time.perf_counter).

        Args: of_a_kind: rounds of the same one take about the same; is_all: no other ranks are to get another message,
            so that nobody waits if answers are waited for here.
        Raises: NodeError.
        """
        group = self._group(ranks) if is_all and len(ranks) > 1 else None
        if group is not None and group.takes(message):
            self._slowness.waiting_for(ranks[0], of_a_kind, time.perf_counter())
            return group.send(message)
        for rank in ranks:
            self.submit(rank, message)
        return time.perf_counter()

    def limit(self, ranks: Sequence[int], limit_seconds: float) -> None:
        """Say how long the round under way may take."""
        for rank in ranks:
            self._clients[rank].round_limit_seconds = limit_seconds

    def quiet_group(self, ranks: tuple[int, ...]) -> Group | None:
        """Return what has C ask all these ranks; None: not now, or never."""
        group = self._group(ranks)
        return group if group is not None and group.is_quick and group.is_quiet else None

    def waiting_for(self, rank: int, of_a_kind: Hashable, since: float) -> None:
        """Note that C waits for answers to rounds, this rank's first. Args: since: time.perf_counter."""
        self._slowness.waiting_for(rank, of_a_kind, since)

    def all_answered(self) -> None:
        """Note that nobody is waited for."""
        self._slowness.idle()

    def _group(self, ranks: tuple[int, ...]) -> Group | None:
        if ranks not in self._groups:
            self._groups[ranks] = group_of([self._clients[rank].together for rank in ranks])
        return self._groups[ranks]

    def collect(self, ranks: Sequence[int], call_id: int, expected: str, of_a_kind: Hashable) -> list[Arrived]:
        """Return each rank's answer to a call, in the order of `ranks`; each says when it came.

        Args: expected: the body that belongs there.
        Raises: NodeError and what a node reports.
        """
        found = []
        since = time.perf_counter()
        for rank in ranks:
            self._slowness.waiting_for(rank, of_a_kind, since)
            try:
                arrived = answer_to(self._clients[rank], call_id, expected)
            except ShardmeshError as error:
                raise self.counted(rank, error) from error.__cause__
            since = max(since, arrived.at)  # it may have been here long before its turn
            found.append(arrived)
        self._slowness.idle()
        return found

    def counted(self, rank: int, error: ShardmeshError) -> ShardmeshError:
        """Count a failure of a node and return it, to be raised."""
        self._past.pass_on()
        self._slowness.idle()
        self.blame(rank, error)
        return error

    def blame(self, rank: int | None, error: ShardmeshError) -> None:
        """Count a failure of a node, or of nobody."""
        self._series.failed("" if rank is None else self._node_names[rank], error)
