"""What would a panel show: its queries asked of a real Prometheus, as Grafana asks them?

Covers: variables and intervals as Grafana fills them in, series by legend, tables merged by their key.
Does not cover: drawing (panel_pictures.py), numbers as text (unit_text.py).
"""

from __future__ import annotations

import json
import math
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.support.promql import substituted

LIMIT_SECONDS = 30.0
SCRAPE_SECONDS = 5
MOST_POINTS = 400
INVISIBLE_LABELS = {"__name__"}


@dataclass(frozen=True)
class Curve:
    """One series of a panel."""

    legend: str
    labels: Mapping[str, str]
    seconds: list[float]
    values: list[float]

    @property
    def last(self) -> float:
        """Return the last number that is one; NaN where there is none."""
        return next((value for value in reversed(self.values) if not math.isnan(value)), math.nan)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Which Prometheus, what is looked at, and of which time."""

    url: str
    ends: float
    seconds: float
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def step(self) -> float:
        """Return the seconds between two points, as Grafana has them at this width."""
        return max(SCRAPE_SECONDS, math.ceil(self.seconds / MOST_POINTS))

    def curves(self, panel: Mapping[str, Any]) -> list[Curve]:
        """Return what a panel shows over time, in the order of its queries. Raises: ValueError: see _ask."""
        return [curve for target in panel.get("targets", []) for curve in self._curves_of(target)]

    def rows(self, panel: Mapping[str, Any]) -> list[dict[str, str | float]]:
        """Return a table's rows: the key's label, and each column's number by its title. Raises: ValueError."""
        names = panel["transformations"][-1]["options"]["renameByName"]
        merged: dict[tuple[tuple[str, str], ...], dict[str, str | float]] = {}
        for target in panel["targets"]:
            for one in self._ask("query", query=self._filled(target["expr"]), time=str(self.ends)):
                labels = {name: value for name, value in one["metric"].items() if name not in INVISIBLE_LABELS}
                row = merged.setdefault(tuple(sorted(labels.items())), dict(labels))
                row[names[f"Value #{target['refId']}"]] = float(one["value"][1])
        return [merged[key] for key in sorted(merged)]

    def _curves_of(self, target: Mapping[str, Any]) -> list[Curve]:
        asked = self._ask(
            "query_range", query=self._filled(target["expr"]), start=str(self.ends - self.seconds), end=str(self.ends),
            step=str(self.step),
        )  # fmt: skip
        curves = [
            Curve(
                _legend(target["legendFormat"], one["metric"]), one["metric"],
                [float(second) for second, _ in one["values"]], [float(value) for _, value in one["values"]],
            )
            for one in asked
        ]  # fmt: skip
        return sorted(curves, key=lambda curve: curve.legend)

    def _filled(self, expression: str) -> str:
        of_grafana = {
            "__rate_interval": f"{max(4 * SCRAPE_SECONDS, self.step + SCRAPE_SECONDS):.0f}s",
            "__range": f"{self.seconds:.0f}s",
        }
        return substituted(expression, {**self.variables, **of_grafana})

    def _ask(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        """Raises: ValueError: Prometheus says that it is none of its language; OSError: it does not answer."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{urlencode(parameters)}", timeout=LIMIT_SECONDS) as page:
            answer = json.loads(page.read())
        if answer["status"] != "success":
            raise ValueError(f"{parameters['query']}: {answer}")
        data = answer["data"]
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        result: list[dict[str, Any]] = data["result"]
        return result


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), pattern)
