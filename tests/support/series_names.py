"""Which series does our code export, and which do dashboards, rules and documents name?

Covers: golden pages, rules files of Prometheus, JSON of dashboards, names in Markdown.
Does not cover: PromQL (promql.py); whether the pages are true (tests/contract/test_metrics_page.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.promql import Selector, grouping_labels_in, selectors_in
from tests.support.source_files import REPOSITORY

GOLDEN_PAGES = tuple(REPOSITORY / f"tests/contract/metrics_{part}.txt" for part in ("coordinator", "node"))
PAGE_LINE = re.compile(r"^(?P<name>\w+) (?P<kind>\w+) \[(?P<labels>[\w,]*)\] ")
PARTS_OF = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}
TARGET_LABELS = frozenset({"job", "instance", "mesh"})
"""What Prometheus puts on every series that it scrapes from us."""
OF_EVERY_TARGET = ("up", "process_start_time_seconds")
"""Prometheus' own series of a scrape, and what prometheus_client tells of each process."""
NAMED = re.compile(r"(?<![\w:/.-])(?:\w+:)?shardmesh_[a-z0-9_:]*[a-z0-9](?![\w:*<{/]|\.\w)")
"""A whole name in a text: neither shardmesh_node_* nor part of a path."""


@dataclass(frozen=True)
class ExportedSeries:
    """One series that Prometheus can have of us."""

    kind: str
    """counter, gauge, histogram; rule for a recorded one."""
    labels: frozenset[str]


@dataclass(frozen=True)
class Query:
    """One expression, and where a person finds it."""

    place: str
    expression: str


def exported_series() -> dict[str, ExportedSeries]:
    """Return every series of the golden pages by name; of a histogram its three, `le` among the buckets' labels."""
    found = {name: ExportedSeries("gauge", TARGET_LABELS | {"node"}) for name in OF_EVERY_TARGET}
    for page in GOLDEN_PAGES:
        of_target = TARGET_LABELS | ({"node"} if page.stem.endswith("node") else set())
        for line in page.read_text(encoding="utf-8").splitlines():
            entry = PAGE_LINE.match(line)
            assert entry, f"{page.name} has a line that is no series: {line}"
            labels = of_target | set(filter(None, entry["labels"].split(",")))
            for part in PARTS_OF.get(entry["kind"], ("",)):
                has = labels | {"le"} if part == "_bucket" else labels
                earlier = found.get(entry["name"] + part)
                found[entry["name"] + part] = ExportedSeries(
                    entry["kind"], has | (earlier.labels if earlier else set())
                )
    return found


def exported_names() -> set[str]:
    """Return what a person may call our series: also a histogram as such, and a counter as it is declared."""
    lines = [line for page in GOLDEN_PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    return {line.split(" ")[0] for line in lines} | set(exported_series())


def recorded_series(path: Path) -> dict[str, ExportedSeries]:
    """Return the series that a rules file records; their labels are whatever their expressions leave."""
    names = re.findall(r"^\s*-?\s*record:\s*(\S+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    every = frozenset(label for series in exported_series().values() for label in series.labels)
    return {name: ExportedSeries("rule", every) for name in names}


def expressions_in_rules(path: Path) -> list[Query]:
    """Return each rule's and alert's expression, on one line or as a block; the files are ours and plain."""
    found, lines = [], path.read_text(encoding="utf-8").splitlines()
    name = ""
    for number, line in enumerate(lines):
        if entry := re.match(r"^\s*-?\s*(?:alert|record):\s*(\S+)", line):
            name = entry[1]
        if entry := re.match(r"^(\s*)(?:-\s+)?expr:\s*(.*)$", line):
            text = entry[2].strip()
            if text in ("|", "|-", ">", ">-"):
                text = "\n".join(_block(lines[number + 1 :], len(entry[1])))
            elif text[:1] in "'\"" and text[:1]:
                text = text[1:-1]
            found.append(Query(f"{path.name}: {name}", text.strip()))
    return found


def expressions_in_dashboard(path: Path) -> list[Query]:
    """Return each query of each panel, also of panels in rows; variables are left in it."""
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    return [
        Query(f"{path.name}: {panel['title']} ({target['refId']})", target["expr"])
        for panel in panels_of(dashboard)
        for target in panel.get("targets", [])
    ]


def panels_of(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels of a dashboard's JSON, those in rows too; rows are none."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", [])


def faults_of(query: Query, exported: dict[str, ExportedSeries]) -> list[str]:
    """Describe every series that nothing exports and every label that its series do not have."""
    selectors = selectors_in(query.expression)
    known = [exported[selector.name] for selector in selectors if selector.name in exported]
    faults = [f"{query.place} reads {s.name}, which nothing exports" for s in selectors if s.name not in exported]
    for selector in selectors:
        missing = set(selector.labels) - exported[selector.name].labels if selector.name in exported else set()
        faults += [f"{query.place} matches {selector.name} by {label}, which it has not" for label in sorted(missing)]
    if known and len(known) == len(selectors):
        every = frozenset().union(*(series.labels for series in known))
        missing = grouping_labels_in(query.expression) - every
        faults += [f"{query.place} groups by {label}, which no series in it has" for label in sorted(missing)]
    return faults


def series_named_in(path: Path) -> set[str]:
    """Return the whole names of series, or of histograms, that a document names; `shardmesh_node_*` is not whole."""
    return set(NAMED.findall(path.read_text(encoding="utf-8")))


def reads_counter_as_it_is(selector: Selector, exported: dict[str, ExportedSeries]) -> bool:
    """Return whether a counter is read without rate, increase or the like: since when it counts nobody knows."""
    is_counter = selector.name.endswith(("_total", "_bucket", "_sum", "_count"))
    return is_counter and selector.name in exported and selector.function not in ("rate", "irate", "increase", "resets")


def _block(lines: list[str], indent: int) -> list[str]:
    block = []
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        block.append(line.strip())
    return block
