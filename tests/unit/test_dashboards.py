"""Can the dashboards be relied on: what they ask for is exported, and each panel says what it shows and what is normal?

Covers: the committed JSON of deploy/grafana/dashboards, by the rules of Grafana's dashboard-linter where they fit; its
job and instance rules are kept as one of ours: every selector is of the chosen mesh, since nodes are known by name.
Does not cover: whether the JSON is what the code makes (`make verify`), Grafana's own types (tests/dashboards), real
data (tests/observed), rules and documents (test_series_names.py).
Source: https://github.com/grafana/dashboard-linter, docs/rules.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.promql import selectors_in, substituted
from tests.support.series_names import (
    exported_series,
    expressions_in_dashboard,
    faults_of,
    panels_of,
    reads_counter_as_it_is,
)
from tests.support.source_files import REPOSITORY

FILES = sorted((REPOSITORY / "deploy/grafana/dashboards").glob("*.json"))
DASHBOARDS = [pytest.param(json.loads(path.read_text(encoding="utf-8")), id=path.stem) for path in FILES]
PATHS = [pytest.param(path, id=path.stem) for path in FILES]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {
    "s",
    "short",
    "decbytes",
    "Bps",
    "percentunit",
    "reqps",
    "ops",
    "bool_yes_no",
    "suffix:tokens",
    "suffix:tokens/s",
}
"""Those that panels may have. Base units: Grafana chooses ms or MB by itself."""
VALUES = {"mesh": "home", "node": "kitchen", "model": "small", "__rate_interval": "1m", "__range": "30m"}
GRID_COLUMNS = 24


def every(dashboard: dict[str, Any], key: str) -> Iterator[Any]:
    """Yield every value of a key, wherever it is."""
    places: list[Any] = [dashboard]
    while places:
        place = places.pop()
        if isinstance(place, dict):
            if key in place:
                yield place[key]
            places += place.values()
        elif isinstance(place, list):
            places += place


def test_there_are_a_mesh_a_node_and_a_model() -> None:
    """The rules below have something to look at."""
    assert [path.stem for path in FILES] == ["mesh", "model", "node"]


@pytest.mark.parametrize("path", PATHS)
def test_every_panel_reads_series_that_the_code_exports(path: Path) -> None:
    """A misspelt name, or a label that its series has not, gives an empty panel and no error."""
    exported = exported_series()
    assert [fault for query in expressions_in_dashboard(path) for fault in faults_of(query, exported)] == []


@pytest.mark.parametrize("path", PATHS)
def test_every_selector_is_of_the_chosen_mesh(path: Path) -> None:
    """One Prometheus may watch several meshes, whose nodes have the same names."""
    for query in expressions_in_dashboard(path):
        for selector in selectors_in(query.expression):
            assert "mesh" in selector.labels, f"{query.place}: {selector.name}"


@pytest.mark.parametrize("path", PATHS)
def test_counters_are_read_as_rates_over_an_interval_that_fits_the_scrapes(path: Path) -> None:
    """`$__rate_interval` has two scrapes at any zoom; `$__range` is all that is looked at."""
    exported = exported_series()
    for query in expressions_in_dashboard(path):
        for selector in selectors_in(query.expression):
            assert not reads_counter_as_it_is(selector, exported), f"{query.place}: {selector.name}"
            assert selector.span in ("", "$__rate_interval", "$__range"), query.place


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_every_panel_teaches(dashboard: dict[str, Any]) -> None:
    """A title, what it shows, what is normal; no two panels of one title."""
    titles = [panel["title"] for panel in panels_of(dashboard)]
    assert len(titles) == len(set(titles))
    for panel in panels_of(dashboard):
        if panel["type"] != "text":
            assert re.search(r"[.:]\n\n\*\*Normal:\*\* .+\.$", panel["description"]), panel["title"]


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_every_number_has_a_unit(dashboard: dict[str, Any]) -> None:
    """Also each column of a table."""
    for panel in panels_of(dashboard):
        if panel["type"] != "text":
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
    for override in (one for some in every(dashboard, "overrides") for one in some):
        for value in (one["value"] for one in override["properties"] if one["id"] == "unit"):
            assert value in UNITS


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_the_data_source_is_chosen_by_who_looks(dashboard: dict[str, Any]) -> None:
    """No panel and no query names one that only our Prometheus has."""
    (first, *others) = dashboard["templating"]["list"]
    assert (first["name"], first["type"], first["query"], first["label"]) == (
        "datasource", "datasource", "prometheus", "Data source",
    )  # fmt: skip
    assert all(variable["datasource"] == SOURCE for variable in others)
    for panel in panels_of(dashboard):
        if panel["type"] != "text":
            assert panel["datasource"] == SOURCE, panel["title"]
            assert panel["targets"], panel["title"]
            assert all(target["datasource"] == SOURCE for target in panel["targets"])
    assert set(every(dashboard, "uid")) == {"${datasource}", dashboard["uid"]}


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_variables_are_looked_up_again_and_each_is_used(dashboard: dict[str, Any]) -> None:
    """A node that joined while the page is open can be chosen; its names come from series that are exported."""
    expressions = " ".join(every(dashboard, "expr"))
    for variable in dashboard["templating"]["list"][1:]:
        assert variable["refresh"] == 2, "2: whenever another time is looked at"
        assert f"${variable['name']}" in expressions
        wanted = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert wanted, variable["query"]
        (selector,) = selectors_in(wanted[1])
        assert {*selector.labels, wanted[2]} <= exported_series()[selector.name].labels


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_a_dashboard_is_the_same_on_every_grafana(dashboard: dict[str, Any]) -> None:
    """Known by its uid; no number that one Grafana gave; not to be edited where it is made again at every update."""
    assert dashboard["uid"].startswith("shardmesh-")
    assert "id" not in dashboard
    assert not [value for value in every(dashboard, "id") if isinstance(value, int) and value]
    assert dashboard["editable"] is False
    assert dashboard["description"]


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_panels_fill_their_rows(dashboard: dict[str, Any]) -> None:
    """None lies over another, and no row has a hole that looks like a panel that failed."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + row) for column in range(place["w"]) for row in range(place["h"])
        }  # fmt: skip
        assert not cells & taken, panel["title"]
        taken |= cells
    heights = {row for _, row in taken}
    assert taken == {(column, row) for column in range(GRID_COLUMNS) for row in heights}
    assert heights == set(range(len(heights)))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian's package prometheus)")
@pytest.mark.parametrize("path", PATHS)
def test_prometheus_understands_every_expression(path: Path, tmp_path: Path) -> None:
    """As rules, which is how promtool reads expressions without a server; variables have values."""
    rules = [
        {"record": f"panel:number{number}", "expr": substituted(query.expression, VALUES)}
        for number, query in enumerate(expressions_in_dashboard(path))
    ]
    written = tmp_path / "rules.yml"
    written.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    result = subprocess.run(["promtool", "check", "rules", written], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
