"""Does a page of ours say letter by letter what the library's would?

Covers: common/program/written_page.py and common/program/kept_lines.py, in both formats, for names that others choose,
and for pages of which only some lines have changed since the last one. Does not cover: which series there are
(tests/contract/test_metrics_page.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from common.program import kept_lines
from common.program.process_series import make_registry
from common.program.scraped_series import ScrapedGauge
from common.program.tallies import CounterTallies, GaugeTallies, HistogramTallies
from common.program.written_page import encoder_for
from coordinator.answering.request_series import RequestSeries
from coordinator.engine.sweep_series import SweepSeries
from coordinator.ranks.round_series import RoundSeries

TEXT = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4"
)
ACCEPTED = ["", TEXT, OPENMETRICS, PROMETHEUS_3, "application/openmetrics-text", "text/plain;version=1.0.0"]
AMOUNTS = [0, 1, -1.5, 1e-9, 123456.75, 1234567.0, 2.0**60, 1e300, float("inf"), float("-inf"), float("nan")]


@pytest.fixture(autouse=True)
def _without_created() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library's


def check(registry: CollectorRegistry, accept: str) -> None:
    """Compare what both write."""
    librarys, content_type = choose_encoder(accept)
    encode, own_content_type = encoder_for(accept)
    assert encode(registry) == librarys(registry)
    assert own_content_type == content_type


@pytest.mark.parametrize("accept", ACCEPTED)
def test_a_programs_page_is_the_librarys(accept: str) -> None:
    """Every kind of series that we have, moved and not."""
    registry = CollectorRegistry()
    SweepSeries(registry).sweep_seconds.observe(0.3)
    tallies = RequestSeries(registry).of("tiny")
    for seconds in (0.0004, 0.02, 5.0, 5000.0):
        tallies.first_token.observe(seconds)
    tallies.generation_tokens.value += 3
    RoundSeries(registry).round_trip_seconds.of("kitchen").observe(0.001)
    check(registry, accept)


Moves = list[tuple[str, str, float]]
NODES, HIGHEST = ["attic", "kitchen"], 2.0**40


@given(pages=st.lists(st.lists(st.tuples(
    st.sampled_from(["count", "show", "observe", "ask", "go", "come"]), st.sampled_from(NODES),
    st.floats(0, HIGHEST) | st.integers(0, 10**9),
)), min_size=2))  # fmt: skip
def test_lines_that_are_kept_are_those_that_have_not_changed(pages: list[Moves]) -> None:
    """Page after page, whatever was moved between them, and whichever labels have gone or are back."""
    registry, there, asked = CollectorRegistry(), set(NODES), dict[tuple[str, ...], float]()
    counts = CounterTallies("counted", "C.", ["node", "why"], registry=registry, keeps=there.__contains__)
    shown = GaugeTallies("shown", "S.", ["node"], registry=registry, keeps=there.__contains__)
    took = HistogramTallies("took", "T.", ["node"], bounds=(1, 1e6), registry=registry, keeps=there.__contains__)
    ScrapedGauge("asked", "A.", ["node"], registry=registry).set_function(lambda: asked)
    for moves in pages:
        for what, node, amount in moves:
            if what == "count":
                counts.of(node, "x").value += amount
            elif what == "show":
                shown.of(node).value = amount
            elif what == "observe":
                took.of(node).observe(amount)
            elif what == "ask":
                asked[node,] = amount
            elif what == "come":
                there.add(node)
            else:
                there.discard(node)
                asked.pop((node,), None)
        for accept in (TEXT, OPENMETRICS):
            check(registry, accept)


def test_a_line_that_has_not_changed_is_not_written_again() -> None:
    """Most of a page is as it was: to write its numbers is most of what it costs."""
    registry = CollectorRegistry()
    counts = CounterTallies("counted", "C.", ["node"], registry=registry)
    took = HistogramTallies("took", "T.", ["node"], bounds=(1, 2), registry=registry)
    for node in NODES:
        counts.of(node).value = 7
        took.of(node).observe(1.5)
    check(registry, TEXT)
    with mock.patch.object(kept_lines, "_number", wraps=kept_lines._number) as numbers:
        check(registry, OPENMETRICS)
        assert numbers.call_count == 0
        counts.of("attic").value += 1
        check(registry, OPENMETRICS)
        assert numbers.call_count == 1
        took.of("attic").observe(0.5)
        check(registry, TEXT)
        assert numbers.call_count == 1 + 5


def test_a_name_that_would_have_to_be_escaped_is_no_series_of_ours() -> None:
    """Such lines are the library's to write."""
    with pytest.raises(ValueError, match=r"a\.b is no usual series"):
        CounterTallies("a.b", "A.", registry=CollectorRegistry())
    with pytest.raises(ValueError, match="is no usual series"):
        GaugeTallies("a", "A.", ["b.c"], registry=CollectorRegistry())


def test_some_series_of_a_page_may_be_asked_for() -> None:
    """By the names of their samples; of them the library has the text."""
    registry = CollectorRegistry()
    HistogramTallies("took", "T.", registry=registry, bounds=(1,)).of().observe(0.5)
    CounterTallies("counted", "C.", registry=registry).of().value = 2
    encode, _ = encoder_for(TEXT)
    page = encode(registry.restricted_registry(["counted_total", "took_sum"])).decode()
    assert {line for line in page.splitlines() if line[0] != "#"} == {"took_sum 0.5", "counted_total 2.0"}


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
@pytest.mark.parametrize("amount", AMOUNTS)
def test_every_amount_is_written_as_the_library_does(amount: float, accept: str) -> None:
    """Go's words for numbers, which Prometheus reads."""
    registry = CollectorRegistry()
    GaugeTallies("a", "A.", registry=registry).of().value = amount
    Gauge("b", "B.", registry=registry).set(amount)
    check(registry, accept)


@given(words=st.text(st.characters(exclude_categories=["Cs"])), accept=st.sampled_from([TEXT, OPENMETRICS]))
def test_no_word_of_others_breaks_a_line(words: str, accept: str) -> None:
    """A name with marks, and a text about a series with them, are escaped as the formats say."""
    registry = CollectorRegistry()
    CounterTallies("asked", f"Asked {words}.", ["model", "by"], registry=registry).of(words, "x").value = 1
    HistogramTallies("took_seconds", "T.", ["z"], bounds=(0.1, 1), registry=registry).of(words).observe(0.5)
    check(registry, accept)


class Odd(Collector):
    """What our programs do not have."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]


def timed() -> Metric:
    """Return a sample of an instant of its own."""
    metric = GaugeMetricFamily("a", "A.")
    metric.add_metric([], 1, timestamp=12)
    return metric


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS, PROMETHEUS_3])
@pytest.mark.parametrize("odd", [timed(), GaugeMetricFamily("a.b", "A.", 1), GaugeMetricFamily("a", "A.", 1, unit="s")])
def test_what_is_unlike_ours_is_written_by_the_library(odd: Metric, accept: str) -> None:
    """An instant of its own, a name with dots, a unit: a package that we use may bring them."""
    registry = CollectorRegistry()
    registry.register(Odd(odd))
    check(registry, accept)


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_the_librarys_own_series_are_written_too(accept: str) -> None:
    """Those that nothing of a round moves are; another kind of them is left to the library."""
    registry = CollectorRegistry()
    Counter("things", "Things.", ["kind"], registry=registry).labels(kind="a").inc(2)
    Histogram("waits", "Waits.", registry=registry).observe(0.3)
    check(registry, accept)
    Info("about", "About.", registry=registry).info({"version": "1"})
    check(registry, accept)


def test_another_way_to_escape_is_the_librarys() -> None:
    """Dots for underscores: nobody asks for it, and it changes every name."""
    registry = make_registry("test")
    encode, _ = encoder_for("text/plain;version=1.0.0;escaping=dots")
    assert b"shardmesh__build__info" in encode(registry)
