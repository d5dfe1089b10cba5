"""What is alike in all our dashboards?

Covers: variables, sections, links to each other, time, refresh. Does not cover: panels (panels.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.panels import SOURCE
from deploy.grafana.texts import texts_of

Panels = Iterable[Any]
Section = tuple[str, Callable[[], Panels]]

OF_A_MESH = {
    "node": 'label_values(shardmesh_coordinator_node_up{mesh="$mesh"}, node)',
    "model": 'label_values(shardmesh_coordinator_model_loaded{mesh="$mesh"}, model)',
}
"""Variables that some dashboards have besides, and what they may be."""


def framed(
    name: str, title: str, description: str, *, sections: Sequence[Section], variable: str = ""
) -> dashboard.Dashboard:
    """Return a dashboard of these sections, its uid shardmesh-`name`.

    Args: variable: what the page is about, besides a mesh: node or model.
    Raises: ValueError: a text of no panel.
    """
    board = (
        dashboard.Dashboard(title).uid(f"shardmesh-{name}").description(description).tags(["shardmesh"])
        .readonly().time("now-30m", "now").refresh("10s").timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Dashboards").type(models.DashboardLinkType.DASHBOARDS).tags(["shardmesh"])
            .as_dropdown(True).include_vars(True).keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_choice("mesh", "label_values(shardmesh_build_info, mesh)"))
    )  # fmt: skip
    if variable:
        board = board.with_variable(_choice(variable, OF_A_MESH[variable]))
    titles = set()
    for heading, panels in sections:
        board = board.with_row(dashboard.Row(heading))
        for panel in panels():
            board = board.with_panel(panel)
            titles.add(panel.build().title)
    if unused := set(texts_of(name)) - titles:
        raise ValueError(f"texts/{name}.toml has texts of panels that there are not: {sorted(unused)}")
    return board


def _choice(name: str, query: str) -> dashboard.QueryVariable:
    """Return a variable that is looked up again whenever another time is looked at."""
    return (
        dashboard.QueryVariable(name).label(name.capitalize()).datasource(SOURCE).query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    )  # fmt: skip
