"""What do the dashboards look like: panels drawn from a real Prometheus' data, where there is no Grafana?

Covers: a picture of a whole dashboard, laid out as its grid says, panels of the kinds that ours have.
Does not cover: asking Prometheus (panel_data.py); what else Grafana draws: this is a likeness of it, and says so.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from tests.dashboards.curve_style import Style, style_of, threshold_colour
from tests.dashboards.panel_data import Curve, Look
from tests.dashboards.unit_text import as_text
from tests.support.series_names import panels_of

matplotlib.use("Agg")
matplotlib.rcParams["text.parse_math"] = False

BACKGROUND, PANEL, EDGE, INK, FAINT, GRID = "#111217", "#181b1f", "#2c2f36", "#d0d2da", "#8e919b", "#2a2d34"
COLUMN_PIXELS, ROW_PIXELS, GAP_PIXELS, DPI = 66, 36, 7, 100
HEAD_PIXELS, LEGEND_LINE_PIXELS = 44, 17
CHARACTER_PIXELS = 6.3
TEXT_POINTS = 8.5


def draw(dashboard_file: Path, look: Look, out: Path) -> list[str]:
    """Draw a dashboard into a PNG, and return the titles of panels that have nothing to show."""
    dashboard = json.loads(dashboard_file.read_text(encoding="utf-8"))
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    page = _Page(rows)
    chosen = "   ".join(f"{name}: {value}" for name, value in look.variables.items())
    page.write(10, 12, f"{dashboard['title']}      {chosen}", size=13, weight="bold")
    for row in (panel for panel in dashboard["panels"] if panel["type"] == "row"):
        left, top, *_ = page.box(row["gridPos"])
        page.write(left + 4, top + 8, f"⌄  {row['title']}", size=11, weight="bold")
    empty = []
    for panel in panels_of(dashboard):
        box = page.box(panel["gridPos"])
        page.frame(box, panel["title"])
        if not DRAWS[panel["type"]](page, box, panel, look):
            empty.append(panel["title"])
            page.write(box[0] + box[2] / 2, box[1] + box[3] / 2, "nothing yet", colour=FAINT, size=11, align="center")
    page.save(out)
    return empty


class _Page:
    """A picture that is measured in pixels from its upper left corner."""

    def __init__(self, rows: int) -> None:
        self.width, self.height = 24 * COLUMN_PIXELS + GAP_PIXELS, rows * ROW_PIXELS + HEAD_PIXELS + GAP_PIXELS
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor=BACKGROUND)

    def box(self, place: Mapping[str, int]) -> tuple[float, float, float, float]:
        """Return left, top, width and height of a place on the grid."""
        return (
            place["x"] * COLUMN_PIXELS + GAP_PIXELS, place["y"] * ROW_PIXELS + HEAD_PIXELS,
            place["w"] * COLUMN_PIXELS - GAP_PIXELS, place["h"] * ROW_PIXELS - GAP_PIXELS,
        )  # fmt: skip

    def frame(self, box: tuple[float, float, float, float], title: str) -> None:
        """Draw a panel's ground and title."""
        axes = self.axes(*box)
        axes.set_facecolor(PANEL)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=EDGE)
        self.write(box[0] + 9, box[1] + 9, title, size=9.5, weight="bold")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes of this place, without lines around them."""
        axes = self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )
        axes.set_facecolor("none")
        axes.spines[:].set_visible(False)
        return axes

    def write(
        self, left: float, top: float, text: str, *, colour: str = INK, size: float = TEXT_POINTS,
        weight: str = "normal", align: str = "left",
    ) -> None:  # fmt: skip
        """Write a line, or several, from its upper left corner, or around a middle."""
        lines = text.splitlines() or [""]
        for number, line in enumerate(lines):
            below = top + size * DPI / 72 * (0.95 + 1.5 * number)
            self.figure.text(
                left / self.width, 1 - below / self.height, line, color=colour, fontsize=size, fontweight=weight,
                ha=align, va="baseline",
            )  # fmt: skip

    def save(self, out: Path) -> None:
        """Write the PNG with 256 colours, a third of the bytes; by octree, which keeps colours that are rare."""
        self.figure.savefig(out, facecolor=BACKGROUND, dpi=DPI)
        with Image.open(out) as drawn:
            small = drawn.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        small.save(out, optimize=True)


Box = tuple[float, float, float, float]
Panel = Mapping[str, Any]


def _draw_lines(page: _Page, box: Box, panel: Panel, look: Look) -> bool:
    curves = [curve for curve in look.curves(panel) if not math.isnan(curve.last)]
    left, top, width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    styles = [style_of(panel, curve, place) for place, curve in enumerate(curves)]
    legend = _legend_lines(curves, styles, width - 24)
    axes = page.axes(left + 66, top + 32, width - 84, height - 60 - LEGEND_LINE_PIXELS * max(1, len(legend)))
    axes.grid(color=GRID, linewidth=0.7)
    axes.tick_params(colors=FAINT, labelsize=7.5, length=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: as_text(value, defaults["unit"])))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_axisbelow(True)
    axes.set_xlim(look.ends - look.seconds, look.ends)
    minutes = _whole_minutes(look, most=int(width // 80))
    axes.set_xticks(minutes, [time.strftime("%H:%M", time.localtime(minute)) for minute in minutes])
    below: dict[float, float] = {}
    for curve, style in zip(curves, styles, strict=True):
        below = _draw_curve(axes, curve, style, below)
    axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max", 1.05 * max(axes.get_ylim()[1], 1e-9)))
    line_top = top + height - 8 - LEGEND_LINE_PIXELS * len(legend)
    for line in legend:
        across = left + 12
        for text, colour in line:
            page.write(across, line_top - 1, "▬", colour=colour, size=8)
            page.write(across + 14, line_top, text, size=8)
            across += 30 + CHARACTER_PIXELS * len(text)
        line_top += LEGEND_LINE_PIXELS
    return bool(curves)


def _draw_curve(axes: Axes, curve: Curve, style: Style, below: dict[float, float]) -> dict[float, float]:
    """Draw a line, or an area on what is `below` it by time; return what the next one lies on."""
    if not style.is_stacked:
        axes.plot(
            curve.seconds, curve.values, color=style.colour, linewidth=1.6, linestyle="--" if style.is_dashed else "-"
        )
        return below
    numbers = [0 if math.isnan(value) else value for value in curve.values]
    floor = [below.get(second, 0.0) for second in curve.seconds]
    top = [low + number for low, number in zip(floor, numbers, strict=True)]
    axes.fill_between(curve.seconds, floor, top, color=style.colour, alpha=0.75, linewidth=0)
    axes.plot(curve.seconds, top, color=style.colour, linewidth=0.9)
    return below | dict(zip(curve.seconds, top, strict=True))


def _legend_lines(curves: Sequence[Curve], styles: Sequence[Style], width: float) -> list[list[tuple[str, str]]]:
    lines: list[list[tuple[str, str]]] = [[]]
    room = width
    for curve, style in zip(curves, styles, strict=True):
        needed = 30 + CHARACTER_PIXELS * len(curve.legend)
        if needed > room and lines[-1]:
            lines.append([])
            room = width
        lines[-1].append((curve.legend, style.colour))
        room -= needed
    return lines[:4]


def _draw_number(page: _Page, box: Box, panel: Panel, look: Look) -> bool:
    curves = [curve for curve in look.curves(panel) if not math.isnan(curve.last)]
    left, top, width, height = box
    if not curves:
        return False
    defaults, curve = panel["fieldConfig"]["defaults"], curves[0]
    colour = threshold_colour(defaults["thresholds"], curve.last)
    axes = page.axes(left + 1, top + height * 0.62, width - 2, height * 0.36)
    axes.set(xticks=[], yticks=[], xlim=(look.ends - look.seconds, look.ends))
    axes.fill_between(curve.seconds, curve.values, color=colour, alpha=0.25, linewidth=0)
    axes.plot(curve.seconds, curve.values, color=colour, linewidth=1)
    axes.set_ylim(bottom=min(0, *curve.values))
    text = as_text(curve.last, defaults["unit"], defaults.get("decimals"))
    page.write(left + width / 2, top + 38, text, colour=colour, size=19, weight="bold", align="center")
    return True


def _draw_bars(page: _Page, box: Box, panel: Panel, look: Look) -> bool:
    curves = [curve for curve in look.curves(panel) if not math.isnan(curve.last)]
    left, top, width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    step = min(70.0, (height - 48) / max(1, len(curves)))
    for place, curve in enumerate(curves):
        above = top + 40 + place * step
        colour = threshold_colour(defaults["thresholds"], curve.last)
        page.write(left + 14, above, curve.legend, size=9)
        axes = page.axes(left + 14, above + 18, width - 100, step - 34)
        axes.set(xticks=[], yticks=[], xlim=(0, defaults["max"]), ylim=(0, 1))
        axes.barh([0.5], [defaults["max"]], color=GRID, height=1)
        axes.barh([0.5], [min(curve.last, defaults["max"])], color=colour, height=1)
        page.write(left + width - 76, above + 20, as_text(curve.last, defaults["unit"]), colour=colour, size=12)
    return bool(curves)


def _draw_table(page: _Page, box: Box, panel: Panel, look: Look) -> bool:
    rows = look.rows(panel)
    left, top, width, _ = box
    organized = panel["transformations"][-1]["options"]
    names = [
        organized["renameByName"][name] for name in sorted(organized["indexByName"], key=organized["indexByName"].get)
    ]
    overrides = {one["matcher"]["options"]: one["properties"] for one in panel["fieldConfig"]["overrides"]}
    step = (width - 24) / len(names)
    for place, name in enumerate(names):
        page.write(left + 12 + place * step, top + 38, name, colour="#6e9fff", size=9, weight="bold")
    for number, row in enumerate(rows):
        for place, name in enumerate(names):
            text, colour = _cell(row.get(name, "-"), {one["id"]: one["value"] for one in overrides.get(name, [])})
            page.write(left + 12 + place * step, top + 64 + number * 26, text, colour=colour, size=9.5)
    return bool(rows)


def _cell(value: str | float, properties: Mapping[str, Any]) -> tuple[str, str]:
    if isinstance(value, str):
        return value, INK
    colour = threshold_colour(properties["thresholds"], value) if "thresholds" in properties else INK
    words = properties.get("mappings", [{"options": {}}])[0]["options"]
    word = words.get(f"{value:g}", {}).get("text")
    return word or as_text(value, properties.get("unit", "short")), colour


def _draw_text(page: _Page, box: Box, panel: Panel, look: Look) -> bool:
    del look
    plain = re.sub(r"[*`]", "", panel["options"]["content"])
    lines = textwrap.wrap(plain, int(box[2] / 7.1))
    page.write(box[0] + 12, box[1] + 34, "\n".join(lines), size=9.5)
    return True


def _whole_minutes(look: Look, most: int) -> list[float]:
    """Return instants for the axis of time: whole minutes, at most so many, equally far apart."""
    step = next(minutes * 60 for minutes in (1, 2, 5, 10, 15, 30, 60, 360) if look.seconds / 60 / minutes <= most)
    first = math.ceil((look.ends - look.seconds) / step) * step
    return [float(second) for second in range(first, int(look.ends) + 1, step)]


DRAWS = {
    "timeseries": _draw_lines, "stat": _draw_number, "bargauge": _draw_bars, "table": _draw_table, "text": _draw_text,
}  # fmt: skip
