"""In which order do the ranks' answers come? As they arrive, over sockets; where there are none to look at, by rank.

Covers: waiting for several ranks at once, silence of one of them. Does not cover: what an answer says (ranks.py), the
order of sums, which is by rank always (reduction.py).

Over gRPC an answer carries the instant at which gRPC's own thread had it, so its turn does not matter.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Iterator, Sequence

from common.errors import NodeTimeout
from coordinator.ranks.transports.transport import NO_DESCRIPTOR, SILENCE_SECONDS, Arrived, ShardClient

Waiting = Callable[[int], None]
"""Told, before each wait, of a rank that is waited for."""


class Arrivals:
    """The answers of the ranks of one run."""

    def __init__(self, clients: Sequence[ShardClient], silence_seconds: float = SILENCE_SECONDS) -> None:
        self._clients = clients
        self._silence_seconds = silence_seconds
        descriptors = [client.fileno() for client in clients]
        self._poll: select.poll | None = None
        if len(clients) > 1 and NO_DESCRIPTOR not in descriptors:
            self._poll = select.poll()
            for descriptor in descriptors:
                self._poll.register(descriptor, select.POLLIN)
        self._rank_of = {descriptor: rank for rank, descriptor in enumerate(descriptors)}

    def of(self, ranks: Sequence[int], call_id: int, waiting: Waiting) -> Iterator[tuple[int, Arrived]]:
        """Yield each rank's response to a call, once. Raises: as ShardClient.collect.

        Responses to earlier calls that nobody has waited for come before it and are passed over.
        """
        started = time.perf_counter()
        if self._poll is None or len(ranks) == 1:
            for rank in ranks:
                waiting(rank)
                while _is_earlier(arrived := self._clients[rank].collect(), call_id):
                    self._check_limit(rank, started)
                yield rank, arrived
            return
        heard = dict.fromkeys(ranks, started)
        while heard:
            waiting(next(iter(heard)))
            for rank in self._ready(self._poll, heard):
                arrived_or_sign = self._clients[rank].receive()
                if rank not in heard:
                    continue  # it has no part in this round and answers an earlier call
                if arrived_or_sign is None or _is_earlier(arrived_or_sign, call_id):
                    heard[rank] = time.perf_counter()
                    self._check_limit(rank, started)
                else:
                    del heard[rank]
                    yield rank, arrived_or_sign

    def _ready(self, poll: select.poll, heard: dict[int, float]) -> list[int]:
        """Return ranks from which something has come. Raises: NodeTimeout: one of `heard` is silent for too long."""
        buffered = [rank for rank in heard if self._clients[rank].has_received()]
        if buffered:
            return buffered
        silent_first = min(heard, key=lambda rank: heard[rank])
        left = heard[silent_first] + self._silence_seconds - time.perf_counter()
        found = [self._rank_of[descriptor] for descriptor, _ in poll.poll(max(0, math.ceil(left * 1000)))]
        if silent_first not in found and heard[silent_first] + self._silence_seconds <= time.perf_counter():
            raise self._clients[silent_first].silent()
        return found

    def _check_limit(self, rank: int, started: float) -> None:
        client = self._clients[rank]
        if time.perf_counter() - started > client.round_limit_seconds:
            raise NodeTimeout(f"{client.name} has worked on one block for more than {client.round_limit_seconds:g} s")


def _is_earlier(arrived: Arrived, call_id: int) -> bool:
    return arrived.response.call_id < call_id and arrived.response.HasField("sequences_changed")
