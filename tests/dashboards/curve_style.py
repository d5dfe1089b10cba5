"""In which colour, and how, does a panel draw each of its series?

Covers: overrides by name and by expression, the palette by name, stacks, thresholds.
Does not cover: drawing (panel_pictures.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.dashboards.panel_data import Curve

PALETTE = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#8ab8ff", "#ffcb7d", "#ff7383", "#96d98d", "#c0d8ff")


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one series is drawn."""

    colour: str
    is_stacked: bool
    is_dashed: bool


def style_of(panel: Mapping[str, Any], curve: Curve, place: int) -> Style:
    """Return the style of a series that is the `place`th of its panel."""
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    found: dict[str, Any] = {}
    for override in panel["fieldConfig"]["overrides"]:
        if _matches(override["matcher"], curve.legend):
            found |= {one["id"]: one["value"] for one in override["properties"]}
    stacking = found.get("custom.stacking", custom.get("stacking", {})).get("mode", "none")
    return Style(
        colour=found["color"]["fixedColor"] if "color" in found else PALETTE[place % len(PALETTE)],
        is_stacked=stacking == "normal",
        is_dashed=found.get("custom.lineStyle", {}).get("fill") == "dash",
    )


def threshold_colour(thresholds: Mapping[str, Any], value: float) -> str:
    """Return the colour of the highest step that a value has reached."""
    colour = ""
    for step in thresholds["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return colour


def _matches(matcher: Mapping[str, Any], legend: str) -> bool:
    if matcher["id"] == "byRegexp":
        return re.search(str(matcher["options"]).strip("/"), legend) is not None
    return bool(matcher["options"] == legend)
