"""What kinds of panels do our dashboards have, and what is alike in all panels of a kind?

Covers: numbers, lines, bars, tables and notes, each with its unit and what it teaches (texts.py).
Does not cover: which panels a dashboard has (mesh_dashboard.py, node_dashboard.py, model_dashboard.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from deploy.grafana.queries import Scope
from deploy.grafana.texts import Teaching

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE, GREY = "#56a64b", "#e0b400", "#e02f44", "#3274d9", "#8e8e8e"
CAUSE_COLOURS = {
    "disk": "#ff780a",
    "processor": BLUE,
    "core_wait": "#8ab8ff",
    "queue": YELLOW,
    "link": "#a352cc",
    "coordinator": GREY,
    "unknown": "#c8c8c8",
}
"""The same colour for a cause in every panel."""
LIMIT = "/budget|limit|fair share/"
"""Legends of what is drawn as a dashed line: not measured, but what the others are to be compared with."""

OF_A_NODE = "{{node}}"
"""The legend of one series a node; a click on one leads to the page of that node."""
PAGE_OF_A_NODE = "/d/shardmesh-node?${datasource:queryparam}&${mesh:queryparam}&${__url_time_range}&var-node="


@dataclass(frozen=True)
class Query:
    """One expression of a panel, and how its series are called in the legend."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Steps:
    """From which value on a number turns from green to yellow and to red; or, falling, from red to green."""

    yellow: float
    red: float

    def build(self) -> dashboard.ThresholdsConfig:
        """Return them for a panel."""
        steps = [(None, GREEN), (self.yellow, YELLOW), (self.red, RED)]
        if self.red < self.yellow:
            steps = [(None, RED), (self.red, YELLOW), (self.yellow, GREEN)]
        thresholds = [models.Threshold(value=value, color=colour) for value, colour in steps]
        return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(thresholds)


def plain_number() -> dashboard.ThresholdsConfig:
    """Return thresholds of a number that is neither good nor bad."""
    step = models.Threshold(value=None, color=BLUE)
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps([step])


def number(
    teaching: Teaching, expression: str, unit: str, *, steps: Steps | None = None, legend: str = "", width: int = 4,
    decimals: int | None = None,
) -> stat.Panel:  # fmt: skip
    """Return one number, now, over a small picture of how it was."""
    panel = (
        stat.Panel().title(teaching.title).description(teaching.text).datasource(SOURCE).span(width).height(4)
        .unit(unit).no_value("nothing yet").with_target(asked(Query(expression, legend or teaching.title), "A"))
        .thresholds(steps.build() if steps else plain_number())
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(kinds.BigValueGraphMode.AREA).color_mode(kinds.BigValueColorMode.VALUE)
        .text_mode(kinds.BigValueTextMode.VALUE)
    )  # fmt: skip
    return panel if decimals is None else panel.decimals(decimals)


def lines(
    teaching: Teaching, queries: Sequence[Query], unit: str, *, width: int = 8, height: int = 8, stacked: bool = False,
    most: float | None = None, colours: Mapping[str, str] | None = None, least: float | None = 0,
) -> timeseries.Panel:  # fmt: skip
    """Return lines over time; `stacked`: areas that add up to a whole.

    Args: most, least: ends of the axis where the numbers have some; colours: of legends, where they mean something.
    """
    panel = (
        timeseries.Panel().title(teaching.title).description(teaching.text).datasource(SOURCE).span(width)
        .height(height).unit(unit).show_points(kinds.VisibilityMode.NEVER).line_width(1 if stacked else 2)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .fill_opacity(70 if stacked else 0)
        .legend(
            common.VizLegendOptions().show_legend(True).display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM)
        )
        .tooltip(
            common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)
        )
        .stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL if stacked else kinds.StackingMode.NONE))
    )  # fmt: skip
    if least is not None:
        panel = panel.min(least)
    if most is not None:
        panel = panel.max(most)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(asked(query, letter))
    if any(query.legend == OF_A_NODE for query in queries):
        panel = panel.data_links([_page_of("${__field.labels.node}")])
    for legend, colour in (colours or {}).items():
        panel = panel.override_by_name(legend, [fixed(colour)])
    return panel.override_by_regexp(LIMIT, _AS_A_LIMIT)


def quantiles(teaching: Teaching, scope: Scope, name: str) -> timeseries.Panel:
    """Return the median and what 95 and 99 of 100 are below, of a histogram of seconds."""
    shares = {"median": 0.5, "95 of 100": 0.95, "99 of 100": 0.99}
    return lines(teaching, [Query(scope.quantile(share, name), legend) for legend, share in shares.items()], "s")


def bars(teaching: Teaching, query: Query, unit: str, *, steps: Steps, most: float, width: int) -> bargauge.Panel:
    """Return one bar for each series, as long as its number is of `most`."""
    return (
        bargauge.Panel().title(teaching.title).description(teaching.text).datasource(SOURCE).span(width).height(8)
        .unit(unit).min(0).max(most).no_value("nothing yet").with_target(asked(query, "A"))
        .thresholds(steps.build())
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .display_mode(kinds.BarGaugeDisplayMode.BASIC).orientation(kinds.VizOrientation.HORIZONTAL)
        .show_unfilled(True).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One number of each row of a table."""

    title: str
    expression: str
    """Grouped by the table's key and nothing else."""
    unit: str
    words: Mapping[int, str] | None = None
    """What stands there instead of a number."""
    steps: Steps | None = None


def rows(teaching: Teaching, key: str, columns: Sequence[Column], *, width: int = 24, height: int = 6) -> table.Panel:
    """Return a table with a row for each value of the label `key`, as of now."""
    panel = (
        table.Panel().title(teaching.title).description(teaching.text).datasource(SOURCE).span(width).height(height)
        .no_value("nothing yet").unit("short")
    )  # fmt: skip
    names = {key: key}
    for letter, column in zip("ABCDEFGHIJ", columns, strict=False):
        panel = panel.with_target(
            asked(Query(column.expression, column.title), letter).instant().format(PromQueryFormat.TABLE)
        )
        names[f"Value #{letter}"] = column.title
        panel = panel.override_by_name(column.title, _of_column(column))
    if key == "node":
        link = {"title": "The page of this node", "url": f"{PAGE_OF_A_NODE}${{__value.raw}}"}
        panel = panel.override_by_name(key, [models.DynamicConfigValue("links", [link])])
    order = {name: place for place, name in enumerate(names)}
    return panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={})).with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names},
        )
    )


def note(teaching: Teaching, *, width: int = 24, height: int = 3) -> text.Panel:
    """Return Markdown that says how to read what is below."""
    return text.Panel().title(teaching.title).mode(TextMode.MARKDOWN).content(teaching.what).span(width).height(height)


def asked(query: Query, letter: str) -> prometheus.Dataquery:
    """Return a query of a panel, over time unless it is made an instant one."""
    return (
        prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(letter).range()
        .datasource(SOURCE)
    )  # fmt: skip


def _page_of(node: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink("The page of this node").url(PAGE_OF_A_NODE + node)


def fixed(colour: str) -> models.DynamicConfigValue:
    """Return the property of an override that has a series drawn in one colour."""
    return models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})


_AS_A_LIMIT = [
    models.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 10]}),
    models.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
    models.DynamicConfigValue(id_val="custom.stacking", value={"mode": "none"}),
    fixed(RED),
]


def _of_column(column: Column) -> list[models.DynamicConfigValue]:
    properties = [models.DynamicConfigValue(id_val="unit", value=column.unit)]
    if column.words:
        options: dict[str, Any] = {str(value): {"text": word} for value, word in column.words.items()}
        properties.append(models.DynamicConfigValue("mappings", [{"type": "value", "options": options}]))
    if column.steps:
        thresholds = column.steps.build().build()
        properties.append(models.DynamicConfigValue("thresholds", thresholds))
        properties.append(models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        properties.append(models.DynamicConfigValue("color", {"mode": "thresholds"}))
    return properties


def ports(program: str, scope: Scope, sent_away: Teaching, connections: Teaching) -> tuple[timeseries.Panel, ...]:
    """Return who is sent away at a program's ports, and how many are there. Args: program: as its series."""
    away = " or ".join(
        f"({scope.rate(f'shardmesh_{program}_refused_{what}_total', by='port, reason')} > 0)"
        for what in ("connections", "calls")
    )
    there = f"max by (port) ({scope.at_once(f'shardmesh_{program}_connections')})"
    return (
        lines(sent_away, [Query(away, "{{port}}: {{reason}}")], "ops", width=12),
        lines(connections, [Query(there, "{{port}}")], "short", width=12),
    )
