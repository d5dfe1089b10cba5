"""Prometheus series whose values are asked for when the page is: totals and sizes that somebody keeps anyway.

Covers: a counter without labels, which never goes down, and gauges with or without labels.
Does not cover: who keeps the values; series that somebody moves (tallies.py).
prometheus_client has this for gauges without labels only (`set_function`), and to count the same bytes twice would cost
work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Values = Mapping[tuple[str, ...], float]
"""By the values of the labels, in their order."""


def _nothing() -> float:
    return 0.0


class ScrapedCounter(Collector):
    """A counter that starts at 0 and shows what its function returns once it has one."""

    def __init__(self, name: str, documentation: str, *, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._before = 0.0
        self._read: Callable[[], float] = _nothing
        registry.register(self)

    def set_function(self, read: Callable[[], float]) -> None:
        """Add to what there was what `read` returns from now on; it must never go down."""
        self._before += self._read()
        self._read = read

    def let_go(self) -> None:
        """Keep what there is now, and ask nobody any more."""
        self.set_function(_nothing)

    def collect(self) -> Iterable[Metric]:
        """Return the series with its value of this moment."""
        return [CounterMetricFamily(self._name, self._documentation, value=self._before + self._read())]

    def describe(self) -> Iterable[Metric]:
        """Return the series without a value, so that the registry refuses a second one of this name."""
        return [CounterMetricFamily(self._name, self._documentation)]


class ScrapedGauge(Collector):
    """A gauge that has no value, and with it no line on the page, until it has a function."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry
    ) -> None:
        self._name, self._documentation, self._labels = name, documentation, tuple(labels)
        self._read: Callable[[], Values] = dict
        registry.register(self)

    def set_function(self, read: Callable[[], Values]) -> None:
        """Show what `read` returns from now on: those values and no others."""
        self._read = read

    def show(self, read: Callable[[], float]) -> None:
        """Show one value, of a gauge without labels."""
        self._read = lambda: {(): read()}

    def collect(self) -> Iterable[Metric]:
        """Return the series with its values of this moment."""
        family = self._family()
        for labels, value in self._read().items():
            family.add_metric(labels, value)
        return [family]

    def describe(self) -> Iterable[Metric]:
        """See ScrapedCounter."""
        return [self._family()]

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._name, self._documentation, labels=self._labels)
