"""Which lines of a page are as they were at the last scrape? They are kept, and only the others are written again.

    about = About(GaugeMetricFamily("age_seconds", "Age."), ["node"])
    row = Row(about.places(("kitchen",)))                        # once for these labels
    Family(about, [(row, (1.5,))]).lines                         # with each page

Covers: the text of usual counters, gauges and histograms, letter by letter as the library writes it; samples for the
library, of whoever asks for them. Does not cover: series of the library's own (written_page.py), who has the numbers
(tallies.py, scraped_series.py).
Source: prometheus.io/docs, exposition formats; the OpenMetrics specification 1.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

KINDS = ("counter", "gauge", "histogram")
SHORT = 6
"""Digits before the point from which on Go, and so the library, writes an exponent."""
Place = tuple[str, Mapping[str, str]]
"""A sample's name, and its labels."""
Numbers = Sequence[float]

_is_usual_name = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*").fullmatch


class About:
    """What is the same of a family with each page. Raises on construction: ValueError: its names are no usual ones."""

    def __init__(self, family: Metric, labels: Sequence[str] = ()) -> None:
        """Args: family: the library's, without samples, which has checked it."""
        if family.type not in KINDS or family.unit or not all(map(_is_usual_name, [family.name, *labels])):
            raise ValueError(f"{family.name} is no usual series")
        self.name, self.documentation, self.type = family.name, family.documentation, family.type
        self._sample_name = f"{self.name}_total" if self.type == "counter" else self.name
        self._labels = tuple(labels)
        about = self.documentation.replace("\\", r"\\").replace("\n", r"\n")
        quoted = about.replace('"', r"\"")
        self.text_head = f"# HELP {self._sample_name} {about}\n# TYPE {self._sample_name} {self.type}\n"
        self.openmetrics_head = f"# HELP {self.name} {quoted}\n# TYPE {self.name} {self.type}\n"

    def labels(self, values: Sequence[str]) -> dict[str, str]:
        """Return labels by name. Args: values: in the order of the names."""
        return dict(zip(self._labels, values, strict=True))

    def places(self, values: Sequence[str]) -> list[Place]:
        """Return where the one number of a counter or a gauge goes. Args: as `labels`."""
        return [(self._sample_name, self.labels(values))]


class Row:
    """The lines of one set of labels: a histogram has some, others have one."""

    __slots__ = ("_kept", "_starts", "places")

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self._starts = [_start(name, labels) for name, labels in places]
        self._kept: tuple[Numbers, str] = ((), "")

    def text(self, numbers: Numbers) -> str:
        """Return the lines with these numbers, in order. From any thread. (0.0 and -0.0 are the same.)"""
        kept, text = self._kept
        if kept != numbers:
            text = "".join([f"{start}{_number(one)}\n" for start, one in zip(self._starts, numbers, strict=True)])
            self._kept = (numbers, text)
        return text


class Family(Metric):
    """A family whose lines are there already, and whose samples are made for who asks for them."""

    def __init__(self, about: About, rows: Sequence[tuple[Row, Numbers]]) -> None:
        """Args: rows: with their numbers of this moment, which nobody changes any more."""
        # Not the library's __init__, which looks at each letter of the name again.
        self.name, self.documentation, self.type, self.unit = about.name, about.documentation, about.type, ""
        self._about, self._rows = about, rows

    @property
    def samples(self) -> list[Sample]:  # type: ignore[override] # nobody puts one there
        """Return what the library takes."""
        return [
            Sample(name, dict(labels), float(number))
            for row, numbers in self._rows
            for (name, labels), number in zip(row.places, numbers, strict=True)
        ]

    def lines(self, *, is_openmetrics: bool) -> str:
        """Return all of it as it stands on a page."""
        about = self._about
        head = about.openmetrics_head if is_openmetrics else about.text_head
        return head + "".join([row.text(numbers) for row, numbers in self._rows])


def _start(name: str, labels: Mapping[str, str]) -> str:
    """Return a line up to its number."""
    if not labels:
        return f"{name} "
    return f"{name}{{{','.join([_label(key, value) for key, value in sorted(labels.items())])}}} "


def _label(key: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'{key}="{escaped}"'


def _number(number: float) -> str:
    text = repr(float(number))
    if text[-1].isdigit() and text.find(".") <= SHORT:
        return text
    return str(floatToGoString(number))  # type: ignore[no-untyped-call] # the library's
