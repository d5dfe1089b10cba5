"""The series of a program's ports: how many connections each has, and who was sent away from it and why.

Covers: connections of gates and pages, calls. Does not cover: who is sent away (callers.py,
common/wire/call_limits.py). Safe from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from common.program.reasons import REASONS
from common.program.scraped_series import ScrapedGauge
from common.program.tallies import CounterTallies

LATE, MANY, STALLED = "late", "many", "stalled"
CALL_REASONS = (LATE, MANY, STALLED)
"""Why a call was refused or broken off: its message did not come in time; its peer has as many as it may; in the middle
of it its caller has said, or read, nothing for too long."""


class DoorSeries:
    """Series of all ports of one program."""

    def __init__(self, prefix: str, ports: Sequence[str], registry: CollectorRegistry) -> None:
        """Args: prefix: of the names, such as shardmesh_node; ports: what they are called."""
        self._lock = threading.Lock()
        self._connections = CounterTallies(
            f"{prefix}_refused_connections", "Connections that were sent away, by the port that they came to and why.",
            ["port", "reason"], registry=registry,
        )  # fmt: skip
        self._calls = CounterTallies(
            f"{prefix}_refused_calls", "Calls that were refused before any work, or broken off later, by port and why.",
            ["port", "reason"], registry=registry,
        )  # fmt: skip
        self._open: dict[str, Callable[[], int]] = dict.fromkeys(ports, int)
        there = ScrapedGauge(f"{prefix}_connections", "Connections that are there now.", ["port"], registry=registry)
        there.set_function(lambda: {(port,): float(count()) for port, count in list(self._open.items())})
        for port in ports:
            for reason in REASONS:
                self._connections.of(port, reason)
            for reason in CALL_REASONS:
                self._calls.of(port, reason)

    def connections(self, port: str) -> Callable[[str], None]:
        """Return what counts a connection of a port that is sent away, by its reason."""
        return self._counting(self._connections, port)

    def calls(self, port: str) -> Callable[[str], None]:
        """Return what counts a call of a port that is refused, by its reason."""
        return self._counting(self._calls, port)

    def follow(self, port: str, count: Callable[[], int]) -> None:
        """Show how many connections a port has from now on."""
        self._open[port] = count

    def _counting(self, tallies: CounterTallies, port: str) -> Callable[[str], None]:
        def count(reason: str) -> None:
            with self._lock:
                tallies.of(port, reason).value += 1

        return count
