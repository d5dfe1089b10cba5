"""Do pictures of dashboards say what Grafana would: numbers, colours, lines?

Covers: unit_text.py, curve_style.py. Does not cover: drawing; look at the pictures.
"""

from __future__ import annotations

import math

import pytest

from tests.dashboards.curve_style import Style, style_of, threshold_colour
from tests.dashboards.panel_data import Curve
from tests.dashboards.unit_text import as_text

PANEL = {
    "fieldConfig": {
        "defaults": {"custom": {"stacking": {"mode": "normal"}}},
        "overrides": [
            {"matcher": {"id": "byName", "options": "disk"},
             "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": "#ff780a"}}]},
            {"matcher": {"id": "byRegexp", "options": "/budget|limit/"},
             "properties": [{"id": "custom.lineStyle", "value": {"fill": "dash"}},
                            {"id": "custom.stacking", "value": {"mode": "none"}}]},
        ],
    }
}  # fmt: skip
STEPS = {"steps": [{"value": None, "color": "green"}, {"value": 1, "color": "yellow"}, {"value": 10, "color": "red"}]}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00012, "s", "120 µs"),
        (0.0456, "s", "45.6 ms"),
        (1.5, "s", "1.5 s"),
        (90, "s", "1.5 mins"),
        (86400 * 3, "s", "3 days"),
        (0, "s", "0 s"),
        (0.5, "percentunit", "50%"),
        (123_456_789, "decbytes", "123 MB"),
        (0, "decbytes", "0 B"),
        (1_500, "Bps", "1.5 kB/s"),
        (12.34, "suffix:tokens/s", "12.3 tokens/s"),
        (0.25, "reqps", "0.25 req/s"),
        (1, "bool_yes_no", "Yes"),
        (1234, "short", "1.23 k"),
        (math.nan, "s", "-"),
    ],
)
def test_numbers_are_written_as_grafana_writes_them(value: float, unit: str, text: str) -> None:
    """Three digits that matter, and the unit that fits them."""
    assert as_text(value, unit) == text


def test_overrides_decide_over_the_panel() -> None:
    """A cause has its colour, a limit is a dashed line and no part of the pile."""
    disk, limit = (Curve(legend, {}, [], []) for legend in ("disk", "kitchen: budget"))
    assert style_of(PANEL, disk, 0) == Style(colour="#ff780a", is_stacked=True, is_dashed=False)
    style = style_of(PANEL, limit, 1)
    assert (style.is_stacked, style.is_dashed) == (False, True)


@pytest.mark.parametrize(("value", "colour"), [(-1, "green"), (0.9, "green"), (1, "yellow"), (11, "red")])
def test_a_number_has_the_colour_of_the_highest_step_it_has_reached(value: float, colour: str) -> None:
    """The lowest step has no value and is always reached."""
    assert threshold_colour(STEPS, value) == colour
