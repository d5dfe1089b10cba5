"""Is what lies in deploy/prometheus right: do alerts fire in time and not before, and does each say what to do?

Covers: the files as Prometheus' own tool takes them, alerts beside runbook and tests.
Does not cover: a Prometheus that runs (tests/observed), series that exist (test_series_names.py).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.source_files import REPOSITORY, python_files
from tests.support.thorough import THOROUGH

PROMETHEUS = REPOSITORY / "deploy" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
TRIED = [path for path in TESTS if THOROUGH or path.name == "nodes.yml"]
SEVERITIES = {"critical", "warning", "info"}
FOR = re.compile(r"^(\s+for: )(\d+)m$", re.MULTILINE)

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus is not here")


def rules() -> Iterator[dict[str, Any]]:
    """Yield every rule."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def cases(tests: list[Path]) -> list[dict[str, Any]]:
    """Return what is expected of alerts."""
    return [case for path in tests for test in yaml.safe_load(path.read_text())["tests"]
            for case in test.get("alert_rule_test", [])]  # fmt: skip


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)


def headings(path: Path) -> set[str]:
    """Return the headings of a document's sections."""
    return set(re.findall(r"^## (Shardmesh\S+)$", path.read_text(), re.MULTILINE))


@needs_promtool
def test_promtool_takes_rules_and_configuration() -> None:
    """As an operator checks them before a restart; certificates are not here, so only the form counts."""
    checked = promtool("check", "rules", *RULES)
    assert checked.returncode == 0, checked.stderr
    configured = promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    assert configured.returncode == 0, configured.stderr


@needs_promtool
def test_each_alert_fires_in_time_and_clears_and_none_does_on_a_mesh_that_is_well() -> None:
    """What tests/*.yml say, with labels and words: one of these files, and with SHARDMESH_THOROUGH=1 all of them."""
    done = promtool("test", "rules", *TRIED)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_an_alert_that_fires_too_early_is_noticed(tmp_path: Path) -> None:
    """With half of each `for` every alert that has one fires where a test says that it does not yet.

    A file of these tests, and with SHARDMESH_THOROUGH=1 all of them.
    """
    shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    for path in (tmp_path / "prometheus" / "rules").iterdir():
        path.write_text(FOR.sub(lambda found: f"{found[1]}{int(found[2]) * 30}s", path.read_text()))
    done = promtool("test", "rules", *(tmp_path / "prometheus" / "tests" / path.name for path in TRIED))
    early = set(re.findall(r"alertname: ?(\w+)", done.stdout + done.stderr))
    assert early
    tested = {case["alertname"] for case in cases(TRIED) if case.get("exp_alerts")}
    assert early == {name for name in tested if "for" in ALERTS[name]}


def test_each_alert_says_what_to_do() -> None:
    """A severity, words for a person, and a section of the runbook, which has no other ones."""
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in SEVERITIES, name
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}, name
        place, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (place, anchor) == ("file:///opt/shardmesh/deploy/prometheus/runbook.md", name.lower())
    assert headings(PROMETHEUS / "runbook.md") == set(ALERTS)


def test_the_runbook_looks_for_lines_that_logs_have() -> None:
    """What it greps a journal for is the name of an entry that a program writes."""
    page = (PROMETHEUS / "runbook.md").read_text()
    sought = re.findall(r'journalctl -u \w+\s*\|\s*grep "([^"]+)"', page)
    assert len(sought) >= 3
    code = "\n".join(path.read_text(encoding="utf-8") for path in python_files("common", "coordinator", "shardnode"))
    for words in sought:
        assert re.search(rf'(entry\(\s*|event = )"{re.escape(words)}', code), words


def test_the_operators_table_has_each_alert_with_its_time_and_severity() -> None:
    """What README.md says of an alert is what the rule does."""
    page = (PROMETHEUS / "README.md").read_text()
    rows = re.findall(r"^\| \[(\w+)\]\(\S+\) \|.*\| (.*) \| (\w+) \|$", page, re.MULTILINE)
    assert {name: severity for name, _, severity in rows} == {
        name: alert["labels"]["severity"] for name, alert in ALERTS.items()
    }
    for name, after, _ in rows:
        if "for" in ALERTS[name]:
            assert after == f"{ALERTS[name]['for'].removesuffix('m')} min", name


def test_each_alert_and_recorded_series_has_a_test() -> None:
    """Each alert is expected to fire at some instant, and not to at another."""
    assert {case["alertname"] for case in cases(TESTS) if case.get("exp_alerts")} == set(ALERTS)
    assert {case["alertname"] for case in cases(TESTS) if not case.get("exp_alerts")} == set(ALERTS)


def test_the_jobs_are_those_that_rules_ask_for() -> None:
    """Names of jobs in expressions are names of jobs in the scrape configuration."""
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configured = {job["job_name"] for job in configuration["scrape_configs"]}
    asked = {name for rule in rules() for name in re.findall(r'job="([^"]+)"', rule["expr"])}
    assert asked == configured
