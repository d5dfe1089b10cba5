"""`coordinator-cli models`: which models are on the mesh."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from coordinator.cli.load_standing import loads_of, not_listed, standing
from coordinator.cli.options import StateOption
from coordinator.cli.telling import tell


def models(state_dir: StateOption = None) -> None:
    """List the models on the mesh: on which nodes each is, how large, and whether it could answer now."""
    from coordinator.membership.reach import owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.records import LoadedModels

    state = state_dir or default_state_directory()
    records = LoadedModels(state)
    found, loads = [*records.all(), *records.interrupted()], loads_of(state)
    begun = not_listed(loads, [model.name for model in found])
    for sentence in begun:
        tell(sentence)
    if not found and not begun:
        tell("no model is loaded; coordinator-cli load MODEL puts one onto the mesh")
    if not found:
        return
    mesh = owner_access(state)
    table = Table(box=None, pad_edge=False)
    for title in ("model", "nodes", "split", "dtype"):
        table.add_column(title, overflow="fold")
    table.add_column("GB", justify="right")
    table.add_column("state", overflow="fold")
    for model in found:
        plan = model.description.plan
        table.add_row(
            model.name, ",".join(model.node_names), plan.strategy, model.description.dtype,
            f"{model.total_bytes() / 1e9:.1f}", standing(model, mesh, loads),
        )  # fmt: skip
    Console().print(table)
