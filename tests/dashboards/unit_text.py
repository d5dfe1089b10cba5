"""How does Grafana write a number of a unit that our panels have?

Covers: the units of tests/unit/test_dashboards.py. Does not cover: all of Grafana's.
"""

from __future__ import annotations

import math

SMALL_SECONDS = ((1e-6, "ns", 1e9), (1e-3, "µs", 1e6), (1.0, "ms", 1e3))
LARGE_SECONDS = ((60, "s", 1), (3600, "mins", 60), (86400, "hours", 3600), (604800, "days", 86400))
WEEKS = (math.inf, "weeks", 604800)
PREFIXES = ("", "k", "M", "G", "T")


def as_text(value: float, unit: str, decimals: int | None = None) -> str:
    """Return the number as Grafana writes it; a dash for one that is none."""
    if math.isnan(value):
        return "-"
    if unit == "bool_yes_no":
        return "Yes" if value else "No"
    if unit == "s":
        return _seconds(value)
    if unit == "percentunit":
        return f"{_short(100 * value, 1 if decimals is None else decimals)}%"
    if unit.startswith("suffix:"):
        return f"{_short(value, 1 if decimals is None else decimals)} {unit.removeprefix('suffix:')}"
    after = {"decbytes": "B", "Bps": "B/s", "reqps": " req/s", "ops": " ops/s", "short": ""}[unit]
    return _prefixed(value, after, decimals)


def _seconds(value: float) -> str:
    size = abs(value)
    if size == 0:
        return "0 s"
    for below, name, factor in SMALL_SECONDS:
        if size < below:
            return f"{_short(value * factor)} {name}"
    for below, name, divisor in (*LARGE_SECONDS, WEEKS):
        if size < below:
            return f"{_short(value / divisor)} {name}"
    return str(value)


def _prefixed(value: float, after: str, decimals: int | None) -> str:
    place = 0
    while abs(value) >= 1000 and place < len(PREFIXES) - 1:
        value, place = value / 1000, place + 1
    digits = decimals if decimals is not None and not place else None
    space = " " if after.startswith("B") or PREFIXES[place] else ""
    return f"{_short(value, digits)}{space}{PREFIXES[place]}{after.strip() if place else after}"


def _short(value: float, decimals: int | None = None) -> str:
    """Return three digits that matter, or so many decimals, without zeros at the end."""
    if decimals is None:
        decimals = 0 if abs(value) >= 100 or value == round(value) else 1 if abs(value) >= 10 else 2
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
