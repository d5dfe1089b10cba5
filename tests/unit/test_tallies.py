"""Do series without locks show what prometheus_client's own would, and drop the labels of what is gone?

Covers: common/program/tallies.py. Does not cover: which series there are (tests/contract/test_metrics_page.py).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from common.program.process_series import make_registry
from common.program.tallies import CounterTallies, GaugeTallies, HistogramTallies

BOUNDS = (0.001, 0.01, 0.5, 1, 60, 2560)
WORDS = "What is counted."


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 5000) | st.sampled_from(BOUNDS))))
def test_a_page_is_the_same_as_with_the_librarys_own_series(moves: list[tuple[str, float]]) -> None:
    """Counters, gauges and histograms, a bound's own value in the bucket that it ends."""
    make_registry("test")  # from here on no library's series has a second one beside it
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    counter, gauge = Counter("c", WORDS, ["node"], registry=theirs), Gauge("g", WORDS, ["node"], registry=theirs)
    histogram = Histogram("h", WORDS, ["node"], buckets=BOUNDS, registry=theirs)
    counts, values = (
        CounterTallies("c", WORDS, ["node"], registry=ours),
        GaugeTallies("g", WORDS, ["node"], registry=ours),
    )
    amounts = HistogramTallies("h", WORDS, ["node"], bounds=BOUNDS, registry=ours)
    for node, amount in moves:
        counter.labels(node=node).inc(amount)
        gauge.labels(node=node).set(amount)
        histogram.labels(node=node).observe(amount)
        counts.of(node).value += amount
        values.of(node).value = amount
        amounts.of(node).observe(amount)
    assert generate_latest(ours) == generate_latest(theirs)


def test_labels_give_the_same_value_each_time() -> None:
    """Whoever looks them up once moves what others see."""
    tallies = CounterTallies("c", WORDS, ["node", "reason"], registry=CollectorRegistry())
    assert tallies.of("kitchen", "LOST") is tallies.of("kitchen", "LOST")
    assert tallies.of("kitchen", "LOST") is not tallies.of("kitchen", "SLOW")


def test_what_is_gone_goes_from_the_page_and_begins_anew_when_it_is_back() -> None:
    """All its labels; who still holds an old value moves nothing that is shown."""
    registry, there = CollectorRegistry(), {"kitchen", "attic"}
    tallies = CounterTallies("c", WORDS, ["node", "reason"], registry=registry, keeps=lambda node: node in there)
    old = tallies.of("kitchen", "LOST")
    for tally in (old, tallies.of("kitchen", "SLOW"), tallies.of("attic", "LOST")):
        tally.value += 1
    there.remove("kitchen")
    page = generate_latest(registry).decode()
    assert "kitchen" not in page
    assert 'c_total{node="attic",reason="LOST"} 1.0' in page
    there.add("kitchen")
    old.value += 1
    assert "kitchen" not in generate_latest(registry).decode()
    tallies.of("kitchen", "LOST").value += 1
    assert 'c_total{node="kitchen",reason="LOST"} 1.0' in generate_latest(registry).decode()


def test_a_name_is_there_once() -> None:
    """As with the library's own."""
    registry = CollectorRegistry()
    CounterTallies("c", WORDS, registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        HistogramTallies("c_total", WORDS, bounds=BOUNDS, registry=registry)
