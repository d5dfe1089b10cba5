"""Spans of some requests, for a collector that speaks OpenTelemetry; none unless the environment names one.

    OTEL_EXPORTER_OTLP_ENDPOINT   where spans go, such as http://127.0.0.1:4318
    OTEL_TRACES_SAMPLER_ARG       which share of the requests, by their names: 0.01 unless it says otherwise

Covers: a span for a request, from its first sweep on, below it its sweeps, below these their rounds and the head;
which requests. Does not cover: writing sweeps down (ranks/trace_watch.py), a file (tracing.py).
Threads: one that takes sweeps, twice a second while there are any of requests that are traced, and the exporter's own.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from common.errors import InputError
from common.program.logs import entry
from coordinator.ranks.trace_watch import TracedSweep, TraceWatch

if TYPE_CHECKING:  # an extra, which most have no use for
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from coordinator.ranks.sweep import Swept

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SHARE, DEFAULT_SHARE = "OTEL_TRACES_SAMPLER_ARG", 0.01
TAKE_SECONDS = 0.5
FORGOTTEN_SECONDS = 60.0
"""A request without a sweep for so long has been cancelled, or has failed."""
FORGET_SECONDS = 10.0
"""From one look for such requests to the next."""
MOST_DRAWN = 64
"""Requests whose draw is remembered: each sweep asks for those that it has rows of."""
CLOSE_SECONDS = 2.0

log = logging.getLogger(__name__)


def spans_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether spans are to go anywhere."""
    return any(environment.get(name) for name in ENDPOINTS)


def sampled_share(environment: Mapping[str, str] = os.environ) -> float:
    """Return which share of requests is traced. Raises: InputError: it is none."""
    text = environment.get(SHARE, "")
    try:
        share = float(text) if text else DEFAULT_SHARE
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"{SHARE} is '{text}'; it must be from 0 to 1, such as 0.01 for one request in a hundred")
    return share


@functools.lru_cache(MOST_DRAWN)
def is_sampled(request_id: str, share: float) -> bool:
    """Tell whether a request is traced: by its name, so that whoever traces it elsewhere traces the same ones."""
    drawn = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big")
    return drawn < share * 2**64


class Spans:
    """Sends them. Close it."""

    def __init__(self, trace: TraceWatch, mesh_name: str, share: float) -> None:
        """Raises: InputError: OpenTelemetry is not installed."""
        self._provider = _provider(mesh_name)
        self._tracer = self._provider.get_tracer("shardmesh")
        self._trace, self._share = trace, share
        self._epoch = time.time_ns() - time.perf_counter_ns()
        self._requests: dict[str, tuple[Span, float]] = {}
        self._ending, self._came = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()
        log.info("%s", entry("spans are sent", share=share))

    def close(self) -> None:
        """Send what is there, and no more. May be called twice."""
        self._ending.set()
        self._came.set()
        self._thread.join(TAKE_SECONDS + CLOSE_SECONDS)
        self._provider.force_flush(int(CLOSE_SECONDS * 1000))
        self._provider.shutdown()

    def _run(self) -> None:
        with self._trace.listen(self._wants, self._came) as listening:
            while not self._ending.is_set():
                self._came.wait(FORGET_SECONDS if self._requests else None)  # most requests wake nobody
                self._ending.wait(TAKE_SECONDS)  # what comes meanwhile is taken with it
                self._came.clear()
                try:
                    for sweep in listening.take():
                        self._add(sweep)
                    self._forget(time.perf_counter() - FORGOTTEN_SECONDS)
                except Exception:  # the thread's edge: without it no more spans would come, and nobody would know
                    log.exception("spans go on after an unforeseen error")
        self._forget(time.perf_counter())

    def _wants(self, swept: Swept) -> bool:
        return any(is_sampled(one.request_id, self._share) for one in swept.rows)

    def _add(self, sweep: TracedSweep) -> None:
        from opentelemetry.trace import set_span_in_context

        swept = sweep.swept
        assert swept is not None  # those that are over are handed out
        for place, rows in enumerate(one for one in swept.rows if is_sampled(one.request_id, self._share)):
            request, _ = self._requests.get(rows.request_id) or (None, 0.0)
            if request is None:
                about = {"shardmesh.request_id": rows.request_id, "shardmesh.model": sweep.model}
                request = self._tracer.start_span("request", start_time=self._at(swept.started), attributes=about)
            self._requests[rows.request_id] = request, swept.finished
            span = self._tracer.start_span(
                "sweep", set_span_in_context(request), start_time=self._at(swept.started),
                attributes={"shardmesh.sweep": swept.sweep_id, "shardmesh.rows": rows.row_count},
            )  # fmt: skip
            if place == 0:  # rounds are everybody's; below one of the sweep's spans is enough
                self._add_rounds(sweep, span)
            span.end(self._at(swept.finished))
            if rows.finish_reason is not None:
                request.set_attribute("shardmesh.finish_reason", rows.finish_reason)
                request.end(self._at(swept.finished))
                del self._requests[rows.request_id]

    def _add_rounds(self, sweep: TracedSweep, above: Span) -> None:
        from opentelemetry.trace import set_span_in_context

        assert sweep.swept is not None
        context = set_span_in_context(above)
        for record in sweep.rounds:
            last = record.last
            span = self._tracer.start_span("round", context, start_time=self._at(record.started), attributes={
                "shardmesh.kind": record.kind, "shardmesh.layer": record.layer,
                "shardmesh.last_node": sweep.names[last.rank], "shardmesh.disk_wait_ns": last.tile_wait_nanoseconds,
                "shardmesh.kernels_ns": last.compute_nanoseconds,
            })  # fmt: skip
            span.end(self._at(record.finished))
        head = self._tracer.start_span("head", context, start_time=self._at(sweep.swept.headed))
        head.end(self._at(sweep.swept.finished))

    def _forget(self, before: float) -> None:
        """End the spans of requests that have had no sweep since."""
        for request_id, (span, last_at) in list(self._requests.items()):
            if last_at <= before:
                span.end(self._at(last_at))
                del self._requests[request_id]

    def _at(self, instant: float) -> int:
        """Return an instant of records as spans have it: nanoseconds since 1970."""
        return self._epoch + int(instant * 1e9)


def _provider(mesh_name: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError as error:
        raise InputError(f"{ENDPOINTS[0]} is set, and OpenTelemetry is not installed ({error.name}); install it: pip "
                         "install 'shardmesh[otel]', or unset it") from error  # fmt: skip
    resource = Resource.create({"service.name": "shardmesh-coordinator", "shardmesh.mesh": mesh_name})
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)  # what is sampled we choose
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
