"""Does everything that names a series name one that the code exports?

Covers: rules and alerts of deploy/prometheus, documents; that a name which nothing exports is noticed.
Does not cover: dashboards (test_dashboards.py), what moves a series (tests/contract/test_metrics_page.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.series_names import (
    ExportedSeries,
    Query,
    exported_names,
    exported_series,
    expressions_in_rules,
    faults_of,
    recorded_series,
    series_named_in,
)
from tests.support.source_files import REPOSITORY

RULES = sorted((REPOSITORY / "deploy/prometheus/rules").glob("*.yml"))
DOCUMENTS = sorted(
    path
    for path in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("deploy/**/*.md"), *REPOSITORY.glob("tests/*.md")]
    if path.name != "CHANGELOG.md"  # it has the names that series had
)


def known_series() -> dict[str, ExportedSeries]:
    """Return what is exported and what is recorded."""
    return exported_series() | {name: rule for path in RULES for name, rule in recorded_series(path).items()}


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in RULES])
def test_every_rule_and_alert_reads_series_that_there_are(path: Path) -> None:
    """An alert about a series that nobody exports never fires, and nobody notices."""
    known = known_series()
    assert [fault for query in expressions_in_rules(path) for fault in faults_of(query, known)] == []


@pytest.mark.parametrize("path", [pytest.param(path, id=path.relative_to(REPOSITORY).as_posix()) for path in DOCUMENTS])
def test_every_series_that_a_document_names_is_exported(path: Path) -> None:
    """Whoever reads of a series looks for it."""
    assert series_named_in(path) - exported_names() - set(known_series()) == set()


EXPORTED = {
    "shardmesh_a_total": ExportedSeries("counter", frozenset({"mesh", "node"})),
    "shardmesh_b": ExportedSeries("gauge", frozenset({"mesh"})),
}


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("rate(shardmesh_gone_total[5m])", "shardmesh_gone_total, which nothing exports"),
        ('shardmesh_b{node="x"}', "matches shardmesh_b by node"),
        ("sum by (rank) (shardmesh_b)", "groups by rank"),
        ("shardmesh_b / on (mesh, job) shardmesh_a_total", "groups by job"),
    ],
)
def test_a_name_or_a_label_in_vain_is_noticed(expression: str, words: str) -> None:
    """The rules above would else hold always."""
    (fault,) = faults_of(Query("a panel", expression), EXPORTED)
    assert words in fault


def test_what_there_is_has_no_faults() -> None:
    """Names, matched and grouped labels."""
    fine = 'sum by (node) (rate(shardmesh_a_total{mesh="x"}[5m])) * on (mesh) group_left () shardmesh_b'
    assert faults_of(Query("a panel", fine), EXPORTED) == []


def test_whole_names_are_found_in_a_document(tmp_path: Path) -> None:
    """Not what is cut short, not a path, not part of a recorded name."""
    page = tmp_path / "page.md"
    page.write_text(
        "`shardmesh_a_total`, shardmesh_b. shardmesh_node_* shardmesh_<stem> /x/shardmesh_c mesh:shardmesh_d:rate1m\n"
    )
    assert series_named_in(page) == {"shardmesh_a_total", "shardmesh_b", "mesh:shardmesh_d:rate1m"}


def test_rules_are_read_on_one_line_and_as_blocks(tmp_path: Path) -> None:
    """As people write them."""
    rules = tmp_path / "rules.yml"
    rules.write_text(
        "groups:\n  - name: g\n    rules:\n"
        "      - record: a:b:c\n        expr: sum(shardmesh_a_total)\n"
        "      - alert: Down\n        expr: |\n          shardmesh_b\n            == 0\n        for: 1m\n"
        "      - alert: Quoted\n        expr: 'shardmesh_b > 1'\n"
    )
    assert [(query.place, query.expression) for query in expressions_in_rules(rules)] == [
        ("rules.yml: a:b:c", "sum(shardmesh_a_total)"),
        ("rules.yml: Down", "shardmesh_b\n== 0"),
        ("rules.yml: Quoted", "shardmesh_b > 1"),
    ]
    assert set(recorded_series(rules)) == {"a:b:c"}
