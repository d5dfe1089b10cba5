"""Prometheus series that one thread moves and the page reads: plain numbers without a lock.

    bytes_sent = CounterTallies("shardmesh_sent_bytes", "Bytes sent.", ["node"], registry=registry)
    to_kitchen = bytes_sent.of("kitchen")    # once: looking labels up takes longer than adding
    to_kitchen.value += 4096

A token moves hundreds of them: with prometheus_client's own, each of which takes a lock, that was most of the work on a
round's record. Each value has one thread that writes; the page may see it a moment old, never torn.
Covers: counters, gauges and histograms with labels, and dropping the labels of what is gone.
Does not cover: values that somebody keeps anyway (scraped_series.py).
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from common.native.served import Distribution
from common.program.kept_lines import About, Family, Numbers, Place, Row


class Tally:
    """One value; whoever moves it adds to it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class HistogramTally:
    """One distribution."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Args: bounds: of the buckets, ascending; what is above the last one has a bucket of its own."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, amount: float) -> None:
        """Count one amount."""
        self.counts[bisect_left(self._bounds, amount)] += 1
        self.total += amount

    def add(self, counts: Sequence[int], total: float) -> None:
        """Count amounts that have been sorted. Args: counts: by bucket, the one above the last bound too."""
        for place, count in enumerate(counts):
            if count:
                self.counts[place] += count
        self.total += total


class SharedHistogramTally(HistogramTally):
    """One distribution that C adds to as well, while the same thread or lock keeps Python from it."""

    __slots__ = ("described",)

    def __init__(self, bounds: Sequence[float]) -> None:
        """Args: as HistogramTally."""
        counts = (ctypes.c_longlong * (len(bounds) + 1))()
        self.described = Distribution((ctypes.c_double * len(bounds))(*bounds), len(bounds), counts, 0.0)
        """For C; good as long as this is there."""
        super().__init__(bounds)
        self.counts = counts  # type: ignore[assignment]  # it has of a list what is asked here

    @property
    def total(self) -> float:
        """The amounts' sum."""
        return float(self.described.total)

    @total.setter
    def total(self, total: float) -> None:
        self.described.total = total


T = TypeVar("T", Tally, HistogramTally)
Keeps = Callable[[str], bool]


class _Tallies(Collector, ABC, Generic[T]):
    """All values of one name, by labels."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry,
        keeps: Keeps = lambda value: True,
    ) -> None:  # fmt: skip
        """Args: keeps: tells of a value of the first label whether it is still one; others go with the next page."""
        self._about = About(self._family(name, documentation), labels)
        self._keeps = keeps
        self._tallies: dict[tuple[str, ...], T] = {}
        self._rows: dict[tuple[str, ...], Row] = {}
        registry.register(self)

    def of(self, *values: str) -> T:
        """Return what is to be moved for these values of the labels; it stays the same one while they are kept."""
        tally = self._tallies.get(values)
        return self._tallies.setdefault(values, self._new()) if tally is None else tally

    def collect(self) -> Iterable[Metric]:
        """Return the series with its values of this moment."""
        shown = []
        for values, tally in list(self._tallies.items()):
            if values and not self._keeps(values[0]):
                self._tallies.pop(values, None)
                self._rows.pop(values, None)
                continue
            row = self._rows.get(values)
            if row is None:
                row = self._rows[values] = Row(self._places(values))
            shown.append((row, self._numbers(tally)))
        return [Family(self._about, shown)]

    def describe(self) -> Iterable[Metric]:
        """Return the series without a value, so that the registry refuses a second one of this name."""
        return [Family(self._about, [])]

    @abstractmethod
    def _new(self) -> T:
        """Return a value that nothing has moved."""

    @abstractmethod
    def _family(self, name: str, documentation: str) -> Metric:
        """Return the library's family of this kind, without values."""

    def _places(self, values: tuple[str, ...]) -> list[Place]:
        """Return where the numbers go of these values of the labels."""
        return self._about.places(values)

    @abstractmethod
    def _numbers(self, tally: T) -> Numbers:
        """Return what a value is at this moment."""


class _PlainTallies(_Tallies[Tally]):
    """Values that are one number."""

    def _new(self) -> Tally:
        return Tally()

    def _numbers(self, tally: Tally) -> Numbers:
        return (tally.value,)


class CounterTallies(_PlainTallies):
    """Counters; `_total` is added to the name."""

    def _family(self, name: str, documentation: str) -> Metric:
        return CounterMetricFamily(name, documentation)


class GaugeTallies(_PlainTallies):
    """Gauges."""

    def _family(self, name: str, documentation: str) -> Metric:
        return GaugeMetricFamily(name, documentation)


class HistogramTallies(_Tallies[HistogramTally]):
    """Histograms."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, bounds: Sequence[float],
        registry: CollectorRegistry, keeps: Keeps = lambda value: True,
    ) -> None:  # fmt: skip
        """Args: bounds: as HistogramTally; the others: as _Tallies."""
        self._bounds = tuple(float(bound) for bound in bounds)
        self._names = [*map(str, self._bounds), "+Inf"]
        super().__init__(name, documentation, labels, registry=registry, keeps=keeps)

    def _new(self) -> HistogramTally:
        return HistogramTally(self._bounds)

    def _family(self, name: str, documentation: str) -> Metric:
        return HistogramMetricFamily(name, documentation)

    def _places(self, values: tuple[str, ...]) -> list[Place]:
        name, labels = self._about.name, self._about.labels(values)
        buckets = [(f"{name}_bucket", {**labels, "le": bound}) for bound in self._names]
        return [*buckets, (f"{name}_count", labels), (f"{name}_sum", labels)]

    def _numbers(self, tally: HistogramTally) -> Numbers:
        counts = list(accumulate(tally.counts))
        return [*counts, counts[-1], tally.total]


class SharedHistogramTallies(HistogramTallies):
    """Histograms that C adds to."""

    def _new(self) -> HistogramTally:
        return SharedHistogramTally(self._bounds)

    def shared(self, *values: str) -> SharedHistogramTally:
        """Return what `of` does."""
        tally = self.of(*values)
        assert isinstance(tally, SharedHistogramTally)
        return tally
