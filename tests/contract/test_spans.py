"""Does a collector that speaks OpenTelemetry hear of requests, and nobody unless the environment names one?

Covers: a real exporter, a collector of the test's own; which share of requests; what is refused. Does not cover: sweeps
themselves (test_tracing.py).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from common.errors import InputError
from common.program.request_id import new_request_id
from coordinator.program.spans import ENDPOINTS, SHARE, is_sampled, sampled_share, spans_wanted
from coordinator.ranks.sweep import Swept, SweptRows
from coordinator.ranks.trace_watch import TraceWatch
from tests.support.loaded_mesh import LoadedMesh
from tests.support.span_collector import Collector
from tests.support.waiting import wait_until

pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="OpenTelemetry is not installed: shardmesh[otel]"
)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Return a collector that the environment names, for all requests."""
    with Collector() as made:
        monkeypatch.setenv(ENDPOINTS[0], made.address)
        monkeypatch.setenv(SHARE, "1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield made


def attributes(span: Any) -> dict[str, Any]:
    """Return what a span says of itself."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_request_is_a_span_of_its_sweeps_and_their_rounds(collector: Collector, tmp_path: Path) -> None:
    """Each inside of the one above it, in time and by name, and without a word of what was said."""
    with LoadedMesh(tmp_path) as mesh:
        mesh.answer("secretword", length=5)
        wait_until(lambda: [span for span in collector.spans() if span.name == "request"], limit_seconds=20, what="it")
    spans = {span.span_id: span for span in collector.spans()}
    by_name: dict[str, list[Any]] = {}
    for span in spans.values():
        by_name.setdefault(span.name, []).append(span)
    (request,) = by_name["request"]
    about = attributes(request)
    assert (about["shardmesh.model"], about["shardmesh.finish_reason"]) == ("tiny", "length")
    assert len(about["shardmesh.request_id"]) == 16
    assert len(by_name["sweep"]) == len(by_name["head"]) >= 5
    assert attributes(by_name["round"][0])["shardmesh.last_node"] == "kitchen"
    for name, above in (("sweep", "request"), ("round", "sweep"), ("head", "sweep")):
        for span in by_name[name]:
            parent = spans[span.parent_span_id]
            assert (parent.name, parent.trace_id) == (above, request.trace_id)
            assert parent.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano
    assert not [sent for sent in collector.requests if b"secretword" in sent.SerializeToString()]


def test_nothing_is_imported_or_sent_where_nobody_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator without a collector has no thread for it, and writes no sweeps down."""
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert not spans_wanted()
    with LoadedMesh(tmp_path) as mesh:
        assert mesh.coordinator._spans is None
        assert mesh.coordinator._generator.trace._listeners == ()


def test_a_collector_without_the_extra_is_refused_in_words(tmp_path: Path, collector: Collector) -> None:
    """With what to install, before anything is opened."""
    from coordinator.program.spans import Spans

    with (
        mock.patch.dict(sys.modules, {"opentelemetry.exporter.otlp.proto.http.trace_exporter": None}),
        pytest.raises(InputError, match=r"pip install 'shardmesh\[otel\]'"),
    ):
        Spans(TraceWatch(), "home", 1.0)


@pytest.mark.parametrize(("text", "share"), [("", 0.01), ("0", 0.0), ("1", 1.0), ("0.25", 0.25)])
def test_the_share_is_what_the_environment_says(text: str, share: float) -> None:
    """One in a hundred where it says nothing."""
    assert sampled_share({SHARE: text}) == share


@pytest.mark.parametrize("text", ["2", "-0.1", "all", "nan"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    """With what it may be."""
    with pytest.raises(InputError, match="from 0 to 1"):
        sampled_share({SHARE: text})


def test_about_the_share_of_requests_is_traced() -> None:
    """By their names; none of none, all of all."""
    names = [new_request_id() for _ in range(20_000)]
    assert sum(is_sampled(name, 0.01) for name in names) == pytest.approx(200, abs=75)
    assert not any(is_sampled(name, 0.0) for name in names)
    assert all(is_sampled(name, 1.0) for name in names)


def test_a_request_that_is_not_traced_wakes_nobody() -> None:
    """Ninety-nine of a hundred: its sweeps are asked about in the engine's thread, and that is all."""
    watch, came = TraceWatch(), threading.Event()
    with watch.listen(lambda swept: swept.rows[0].request_id == "traced", came) as listening:
        watch.swept(Swept(1, 0.0, 0.1, 0.2, (SweptRows("another", 1, None),)))
        assert not came.is_set()
        assert listening.take() == []
        watch.swept(Swept(2, 0.2, 0.3, 0.4, (SweptRows("traced", 1, None),)))
        assert came.is_set()
        assert [sweep.swept.sweep_id for sweep in listening.take() if sweep.swept] == [2]
