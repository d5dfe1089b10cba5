"""A Prometheus counter whose value is asked for when the page is: totals that somebody keeps anyway.

Covers: one series without labels. Does not cover: who keeps the total.
prometheus_client has this for gauges only (`set_function`), and to count the same bytes twice would cost work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class ScrapedCounter(Collector):
    """A counter that starts at 0 and shows what its function returns once it has one."""

    def __init__(self, name: str, documentation: str, *, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._read: Callable[[], float] = lambda: 0
        registry.register(self)

    def set_function(self, read: Callable[[], float]) -> None:
        """Show what `read` returns from now on; it must never go down."""
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Return the series with its value of this moment."""
        return [CounterMetricFamily(self._name, self._documentation, value=self._read())]

    def describe(self) -> Iterable[Metric]:
        """Return the series without a value, so that the registry refuses a second one of this name."""
        return [CounterMetricFamily(self._name, self._documentation)]
