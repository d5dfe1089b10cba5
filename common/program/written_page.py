"""How do series become the text that Prometheus reads? Ours have it; the library writes what others have.

Covers: Prometheus' text format 0.0.4 and OpenMetrics 1.0.0, letter by letter as prometheus_client would. Whatever else
is asked for the library writes alone. It looks at each letter of each name, with each page again; that was most of what
a scrape cost.
Does not cover: what a family of ours says (kept_lines.py), which series there are, sending (metrics_page.py).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from common.program.kept_lines import Family

Encode = Callable[[Collector], bytes]
END = b"# EOF\n"
"""Of a page in OpenMetrics."""
MOST_ASKED = 16
"""Ways to ask that are remembered: whoever reads a page asks the same way each time."""
_is_text = re.compile(r"text/plain; version=(0\.0\.4|1\.0\.0).*").fullmatch
_is_openmetrics = re.compile(r"application/openmetrics-text; version=1\.0\.0.*").fullmatch
_is_other_escaping = re.compile(r"escaping=(?!underscores|allow-utf-8)").search


@functools.lru_cache(MOST_ASKED)
def encoder_for(accept: str) -> tuple[Encode, str]:
    """Return what writes a page in the format that is asked for, and its content type. Args: accept: of the request."""
    librarys, content_type = choose_encoder(accept)
    is_openmetrics = _is_openmetrics(content_type) is not None
    if _is_other_escaping(content_type) or not (is_openmetrics or _is_text(content_type)):
        return librarys, content_type

    def encode(registry: Collector) -> bytes:
        return written(registry.collect(), librarys, is_openmetrics=is_openmetrics)

    return encode, content_type


def written(metrics: Iterable[Metric], librarys: Encode, *, is_openmetrics: bool) -> bytes:
    """Return a page. Args: librarys: what writes families that are not ours, in the same format."""
    parts: list[bytes] = []
    for is_ours, some in groupby(metrics, lambda metric: isinstance(metric, Family)):
        if is_ours:
            lines = [one.lines(is_openmetrics=is_openmetrics) for one in some if isinstance(one, Family)]
            parts.append("".join(lines).encode("utf-8"))
        else:
            parts.append(librarys(_Collected(list(some))).removesuffix(END))
    if is_openmetrics:
        parts.append(END)
    return b"".join(parts)


class _Collected(Collector):
    """Metrics as they were collected, for the library to write."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics
