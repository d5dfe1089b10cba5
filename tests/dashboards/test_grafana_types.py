"""Does Grafana's own schema package accept the dashboards?

Covers: the committed JSON; that a wrong option, kind or name is noticed. Does not cover: an import into a live Grafana.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.grafana_types import complaints, types_directory
from tests.support.fetched_packages import Unreachable
from tests.support.series_names import panels_of
from tests.support.source_files import REPOSITORY


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Return a place beside the packages, where the compiler finds them."""
    try:
        types = types_directory()
    except Unreachable as error:
        pytest.skip(f"Grafana's types are not here: {error}")
    with tempfile.TemporaryDirectory(dir=types, prefix="check-") as directory:
        yield Path(directory)


@pytest.fixture
def dashboards() -> dict[str, dict[str, Any]]:
    """Return all of ours by name."""
    files = (REPOSITORY / "deploy/grafana/dashboards").glob("*.json")
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(files)}


def test_grafana_accepts_every_dashboard(scratch: Path, dashboards: dict[str, dict[str, Any]]) -> None:
    """Dashboards, panels' options and field configurations, by the types that Grafana itself is compiled with."""
    assert complaints(dashboards, scratch) == []


def test_what_grafana_does_not_know_is_noticed(scratch: Path, dashboards: dict[str, dict[str, Any]]) -> None:
    """An option that there is not, a word that is none of an enumeration, a text where a number belongs."""
    wrong = copy.deepcopy(dashboards["mesh"])
    first = next(panel for panel in panels_of(wrong) if panel["type"] == "timeseries")
    first["options"]["legend"]["displayMode"] = "lists"
    first["fieldConfig"]["defaults"]["custom"]["lineWidths"] = 2
    wrong["graphTooltip"] = "one"
    said = "\n".join(complaints({"wrong": wrong}, scratch))
    assert "lists" in said
    assert "lineWidths" in said
    assert "DashboardCursorSync" in said
