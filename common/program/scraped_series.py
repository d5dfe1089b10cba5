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

from common.program.kept_lines import About, Family, Row

Values = Mapping[tuple[str, ...], float]
"""By the values of the labels, in their order."""


def _nothing() -> float:
    return 0.0


class ScrapedCounter(Collector):
    """A counter that starts at 0 and shows what its function returns once it has one."""

    def __init__(self, name: str, documentation: str, *, registry: CollectorRegistry) -> None:
        self._about = About(CounterMetricFamily(name, documentation))
        self._row = Row(self._about.places(()))
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
        return [Family(self._about, [(self._row, (self._before + self._read(),))])]

    def describe(self) -> Iterable[Metric]:
        """Return the series without a value, so that the registry refuses a second one of this name."""
        return [Family(self._about, [])]


class ScrapedGauge(Collector):
    """A gauge that has no value, and with it no line on the page, until it has a function."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry
    ) -> None:
        self._about = About(GaugeMetricFamily(name, documentation), labels)
        self._rows: dict[tuple[str, ...], Row] = {}
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
        values, kept = self._read(), self._rows
        if kept.keys() != values.keys():
            kept = {labels: kept.get(labels) or Row(self._about.places(labels)) for labels in values}
            self._rows = kept  # whole: another page may be made meanwhile
        return [Family(self._about, [(kept[labels], (value,)) for labels, value in values.items()])]

    def describe(self) -> Iterable[Metric]:
        """See ScrapedCounter."""
        return [Family(self._about, [])]
