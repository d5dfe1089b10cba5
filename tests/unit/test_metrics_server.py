"""Is the metrics page there while it should be, on loopback only, and do scraped series show what is asked for?

Covers: common/program/metrics_page.py, common/program/scraped_series.py. Does not cover: which series there
are (tests/contract).
"""

from __future__ import annotations

import urllib.error
import urllib.request

import psutil
import pytest
from prometheus_client import CollectorRegistry, Gauge

from common.errors import AddressInUse
from common.program.metrics_page import MetricsPage, MetricsPlace
from common.program.scraped_series import ScrapedCounter, ScrapedGauge


def scraped(page: MetricsPage) -> str:
    """Fetch the page as Prometheus does."""
    with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def test_the_page_shows_the_values_of_this_moment() -> None:
    """What is asked for when the page is, is new each time."""
    registry = CollectorRegistry()
    gauge = Gauge("things", "Things.", registry=registry)
    page = MetricsPage(registry, MetricsPlace(port=0))
    try:
        gauge.set(1)
        assert "\nthings 1.0\n" in scraped(page)
        gauge.set(2)
        assert "\nthings 2.0\n" in scraped(page)
    finally:
        page.close()


def test_the_page_is_for_this_machine_only() -> None:
    """It listens on 127.0.0.1, so that nobody on the network reads it."""
    page = MetricsPage(CollectorRegistry(), MetricsPlace(port=0))
    listening = [c.laddr.ip for c in psutil.Process().net_connections("inet") if c.laddr.port == page.port]
    page.close()
    assert listening == ["127.0.0.1"]


def test_a_taken_port_is_an_error_that_names_the_flag() -> None:
    """Two pages never share a port."""
    page = MetricsPage(CollectorRegistry(), MetricsPlace(port=0))
    try:
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{page.port}.*--metrics-port"):
            MetricsPage(CollectorRegistry(), MetricsPlace(port=page.port))
    finally:
        page.close()


def test_a_closed_page_is_gone_and_its_port_free() -> None:
    """A node that starts again gets the same port."""
    page = MetricsPage(CollectorRegistry(), MetricsPlace(port=0))
    port = page.port
    page.close()
    with pytest.raises(urllib.error.URLError):
        scraped(page)
    again = MetricsPage(CollectorRegistry(), MetricsPlace(port=port))
    again.close()


def test_a_scraped_counter_is_a_counter_that_asks() -> None:
    """It starts at 0, ends in _total, and shows what its function returns when the page is made."""
    registry = CollectorRegistry()
    counter = ScrapedCounter("read_bytes", "Bytes read.", registry=registry)
    assert registry.get_sample_value("read_bytes_total") == 0
    totals = iter([5, 7])
    counter.set_function(lambda: next(totals))
    assert registry.get_sample_value("read_bytes_total") == 5
    (family,) = registry.collect()
    assert (family.type, family.documentation, family.samples[0].value) == ("counter", "Bytes read.", 7)


def test_a_scraped_counter_never_goes_down_when_another_one_is_asked() -> None:
    """What the one before had is added to; let go, it stands."""
    registry = CollectorRegistry()
    counter = ScrapedCounter("read_bytes", "Bytes read.", registry=registry)
    for _ in range(2):
        counter.set_function(lambda: 5)
    assert registry.get_sample_value("read_bytes_total") == 10
    counter.let_go()
    assert registry.get_sample_value("read_bytes_total") == 10


def test_a_scraped_gauge_has_those_values_that_there_are_now() -> None:
    """None before it has a function; labels that are gone are gone."""
    registry, ages = CollectorRegistry(), {("kitchen",): 1.0, ("attic",): 2.0}
    gauge = ScrapedGauge("age_seconds", "Age.", ["node"], registry=registry)
    assert [list(family.samples) for family in registry.collect()] == [[]]
    gauge.set_function(lambda: ages)
    assert registry.get_sample_value("age_seconds", {"node": "attic"}) == 2
    del ages["attic",]
    assert registry.get_sample_value("age_seconds", {"node": "attic"}) is None
    assert registry.get_sample_value("age_seconds", {"node": "kitchen"}) == 1


def test_a_name_is_registered_once() -> None:
    """A scraped counter's name belongs to it like any other series' name."""
    registry = CollectorRegistry()
    ScrapedCounter("read_bytes", "Bytes read.", registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Gauge("read_bytes_total", "Bytes read.", registry=registry)
