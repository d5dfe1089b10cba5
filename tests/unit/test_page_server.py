"""Is a page there for who may read it, whatever others do to its port, and does it give what is asked for?

Covers: common/program/page_server.py, the formats of common/program/metrics_page.py. Does not cover: TLS and who may
read (tests/contract/test_metrics_access.py).
"""

from __future__ import annotations

import gzip
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry, Gauge

from common.errors import AddressInUse, InputError
from common.program import page_server
from common.program.metrics_page import MetricsPage, MetricsPlace
from common.program.page_server import MOST_CONNECTIONS, MOST_HEAD_BYTES, MOST_THREADS
from tests.support.waiting import wait_until

LIMIT_SECONDS = 10.0
SHORT_SECONDS = 1.0


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have requests end early; to be asked for before `page`."""
    monkeypatch.setattr(page_server, "SECONDS", SHORT_SECONDS)


@pytest.fixture
def page() -> Iterator[MetricsPage]:
    """Return a page with one gauge, and another one beside it."""
    registry = CollectorRegistry()
    Gauge("things", "Things.", registry=registry).set(3)
    Gauge("others", "Others.", registry=registry).set(4)
    made = MetricsPage(registry, MetricsPlace(port=0), pages={"/sd": lambda: ("application/json", b"[]")})
    try:
        yield made
    finally:
        made.close()


def fetched(page: MetricsPage, path: str = "/metrics", **headers: str) -> bytes:
    """Return what the page answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{page.port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
        return bytes(answer.read())


def connection_to(page: MetricsPage, host: str = "127.0.0.1") -> socket.socket:
    """Return a connection from an address of this machine."""
    return socket.create_connection(("127.0.0.1", page.port), timeout=LIMIT_SECONDS, source_address=(host, 0))


def is_open(connection: socket.socket) -> bool:
    """Tell whether the other end has not closed a connection on which nothing was sent."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def caller_threads() -> int:
    """Return how many connections are being served."""
    return sum(thread.name == "metrics caller" for thread in threading.enumerate())


def test_a_scrape_gets_the_format_and_the_series_that_it_asks_for(page: MetricsPage) -> None:
    """Packed or not, OpenMetrics or text, all series or some; other pages beside it; nothing elsewhere."""
    assert b"\nthings 3.0\n" in fetched(page)
    assert b"\nthings 3.0\n" in gzip.decompress(fetched(page, **{"Accept-Encoding": "gzip"}))
    assert fetched(page, Accept="application/openmetrics-text; version=1.0.0").endswith(b"# EOF\n")
    assert b"others" not in fetched(page, "/metrics?name[]=things")
    assert fetched(page, "/sd") == b"[]"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetched(page, "/etc/passwd")
    with connection_to(page) as connection:
        connection.sendall(b"GET http://[/ HTTP/1.1\r\n\r\n")  # half an address of IPv6
        assert b" 400 " in connection.recv(100)


def test_idle_connections_hold_neither_the_page_nor_threads(page: MetricsPage) -> None:
    """Hundreds that say nothing or half a request: the page answers at once, with a bounded number of threads."""
    idle = [connection_to(page) for _ in range(300)]
    for connection in idle[::2]:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
    for _ in range(20):
        assert b"\nthings 3.0\n" in fetched(page)
    assert caller_threads() <= MOST_THREADS
    assert sum(map(is_open, idle)) <= MOST_CONNECTIONS
    for connection in idle:
        connection.close()


def test_a_crowd_from_one_host_keeps_no_other_host_away(page: MetricsPage) -> None:
    """Who has the most connections loses one, so one that waits from elsewhere keeps its place."""
    first = connection_to(page, "127.0.0.2")
    crowd = [connection_to(page) for _ in range(100)]
    wait_until(lambda: sum(map(is_open, crowd)) < MOST_CONNECTIONS, limit_seconds=LIMIT_SECONDS, what="places taken")
    first.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert b"200 OK" in first.recv(100)
    for connection in (first, *crowd):
        connection.close()


@pytest.mark.usefixtures("short")
def test_a_slow_request_ends_in_time_however_it_trickles(page: MetricsPage) -> None:
    """A byte now and then makes it no longer; its place and its thread are free again, and so is an idle one's."""
    with connection_to(page) as idle, connection_to(page) as slow:

        def has_ended() -> bool:
            with suppress(OSError):  # it has
                slow.send(b"G")
            return not is_open(slow)

        seconds = wait_until(has_ended, limit_seconds=LIMIT_SECONDS, what="the end of a request")
        assert SHORT_SECONDS / 2 < seconds < 3 * SHORT_SECONDS
        wait_until(lambda: not is_open(idle), limit_seconds=LIMIT_SECONDS, what="the idle one's end")
    wait_until(lambda: not caller_threads(), limit_seconds=LIMIT_SECONDS, what="the end of its thread")


def test_a_request_is_short(page: MetricsPage) -> None:
    """Nobody makes the process keep megabytes of headers."""
    with connection_to(page) as long:
        long.sendall(b"GET / HTTP/1.0\r\nX: " + b"x" * 2 * MOST_HEAD_BYTES)
        wait_until(lambda: not is_open(long), limit_seconds=LIMIT_SECONDS, what="the end of it")
    assert b"things" in fetched(page)


@pytest.mark.parametrize("method", ["HEAD", "POST", "BREW"])
def test_a_page_can_be_read_and_nothing_else(page: MetricsPage, method: str) -> None:
    """One line of plain text with the status that says so; to HEAD its headers only."""
    with connection_to(page) as connection:
        connection.sendall(f"{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0].split()[1] == b"405"
    assert b"Allow: GET" in head
    assert b"text/plain" in head
    assert body == (b"" if method == "HEAD" else b"this page can be read and nothing else: use GET\n")


def test_a_page_that_fails_costs_one_answer(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next request is answered."""
    answers = iter([b"", b"well"])

    def make() -> tuple[str, bytes]:
        answer = next(answers)
        if not answer:
            raise ValueError("no page")
        return "text/plain", answer

    page = MetricsPage(CollectorRegistry(), MetricsPlace(port=0), pages={"/sd": make})
    try:
        with pytest.raises(OSError):  # noqa: PT011 - http.client has several for an answer that does not come
            fetched(page, "/sd")
        assert "metrics page failed caller=127.0.0.1" in caplog.text
        assert fetched(page, "/sd") == b"well"
    finally:
        page.close()


def test_a_page_without_a_door_is_this_machines_own() -> None:
    """Whatever the options have become, plain text does not leave the machine; names that nobody knows are told."""
    for host in ("0.0.0.0", "[::]", "192.0.2.1", "kitchen"):
        with pytest.raises(InputError, match="over TLS only"):
            MetricsPage(CollectorRegistry(), MetricsPlace(port=0, host=host))
    MetricsPage(CollectorRegistry(), MetricsPlace(port=0, host="localhost")).close()
    with pytest.raises(InputError, match=r"--metrics-port is 65536"):
        MetricsPlace(port=65536)


def test_a_page_ends_at_once_when_nobody_reads_it(page: MetricsPage) -> None:
    """Idle connections are cut, and none of its threads is left."""
    idle = [connection_to(page) for _ in range(5)]
    began = time.monotonic()
    page.close()
    assert time.monotonic() - began < SHORT_SECONDS
    wait_until(lambda: not any(map(is_open, idle)), limit_seconds=LIMIT_SECONDS, what="the end of connections")
    for connection in idle:
        connection.close()
    assert caller_threads() == 0
    other = MetricsPage(CollectorRegistry(), MetricsPlace(port=page.port))
    with pytest.raises(AddressInUse):
        MetricsPage(CollectorRegistry(), MetricsPlace(port=page.port))
    other.close()
