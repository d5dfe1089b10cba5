"""How do series become the text that Prometheus reads? As prometheus_client writes them, in a quarter of its time.

Covers: Prometheus' text format 0.0.4 and OpenMetrics 1.0.0 of counters, gauges and histograms whose names are words of
the old kind, which is all that our programs have. Whatever else is asked for, or is in a registry, the library writes.
The library looks at each letter of each name, with each page again; that was most of what a scrape cost.
Does not cover: which series there are, how a page is sent (metrics_page.py).
Source: prometheus.io/docs, exposition formats; the OpenMetrics specification 1.0.0.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Encode = Callable[[Collector], bytes]
KINDS = ("counter", "gauge", "histogram")
LIBRARYS_OWN = ("_created", "_gsum", "_gcount")
"""Ends of samples that the old format has in other places than the new one."""
MOST_LABELS = 1024
"""That are remembered: with each page the same ones are written again, a bucket's for each histogram."""
_is_usual_name = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*").fullmatch
_is_text = re.compile(r"text/plain; version=(0\.0\.4|1\.0\.0).*").fullmatch
_is_openmetrics = re.compile(r"application/openmetrics-text; version=1\.0\.0.*").fullmatch
_is_other_escaping = re.compile(r"escaping=(?!underscores|allow-utf-8)").search


def encoder_for(accept: str) -> tuple[Encode, str]:
    """Return what writes a page in the format that is asked for, and its content type. Args: accept: of the request."""
    librarys, content_type = choose_encoder(accept)
    is_openmetrics = _is_openmetrics(content_type) is not None
    if _is_other_escaping(content_type) or not (is_openmetrics or _is_text(content_type)):
        return librarys, content_type

    def encode(registry: Collector) -> bytes:
        metrics = list(registry.collect())
        if not all(map(_is_usual, metrics)):
            return librarys(_Collected(metrics))
        return written(metrics, is_openmetrics=is_openmetrics)

    return encode, content_type


def written(metrics: list[Metric], *, is_openmetrics: bool) -> bytes:
    """Return a page of usual series."""
    lines: list[str] = []
    for metric in metrics:
        name, about = metric.name, metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
        if is_openmetrics:
            about = about.replace('"', r"\"")
        elif metric.type == "counter":
            name += "_total"
        lines.append(f"# HELP {name} {about}\n# TYPE {name} {metric.type}\n")
        for sample in metric.samples:
            number = floatToGoString(sample.value)  # type: ignore[no-untyped-call] # the library's
            if not sample.labels:
                lines.append(f"{sample.name} {number}\n")
                continue
            labels = ",".join([_label(key, value) for key, value in sorted(sample.labels.items())])
            lines.append(f"{sample.name}{{{labels}}} {number}\n")
    if is_openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode("utf-8")


class _Collected(Collector):
    """Metrics as they were collected, for the library to write."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _is_usual(metric: Metric) -> bool:
    if metric.type not in KINDS or metric.unit or not _is_usual_name(metric.name):
        return False
    if metric.samples and not all(map(_is_usual_name, metric.samples[0].labels)):  # all of a family have the same ones
        return False
    for sample in metric.samples:
        if sample.timestamp is not None or sample.exemplar is not None or sample.native_histogram is not None:
            return False
        if sample.name.endswith(LIBRARYS_OWN):
            return False
    return True


@functools.lru_cache(MOST_LABELS)
def _label(key: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'{key}="{escaped}"'
