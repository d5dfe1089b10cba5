"""Pages of metrics as text: fetching one, what series it has, which have moved, one value.

    described(page)                                                  # what golden pages hold
    total(page, "shardmesh_node_failures_total", reason="PROTOCOL")

Covers: our own series; what prometheus_client says of the process is left out. Does not cover: registries
(series_totals.py).
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

OURS = "shardmesh_"


def fetched(port: int) -> str:
    """Fetch a page as Prometheus does."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def families(page: str) -> Iterator[Metric]:
    """Yield the families of a page that are ours."""
    return (family for family in text_string_to_metric_families(page) if family.name.startswith(OURS))


def described(page: str) -> str:
    """Return one line per series: full name, type, labels, help; without values."""
    lines = []
    for family in families(page):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        lines.append(f"{name} {family.type} [{','.join(labels)}] {family.documentation}")
    return "\n".join(sorted(lines)) + "\n"


def moved(*pages: str) -> set[str]:
    """Return the names of families that have a sample above 0 on one of the pages."""
    return {family.name for page in pages for family in families(page) for sample in family.samples if sample.value > 0}


def total(page: str, name: str, **labels: str) -> float:
    """Return the one sample of that name and those labels."""
    (value,) = [
        sample.value
        for family in families(page) for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]  # fmt: skip
    return value


def label_values(page: str) -> dict[str, set[str]]:
    """Return every label of a page but the buckets', with all its values."""
    found: dict[str, set[str]] = {}
    for family in families(page):
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le":
                    found.setdefault(label, set()).add(value)
    return found
