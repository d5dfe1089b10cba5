"""`coordinator-cli models`: which models are on the mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.program.sizes import shown_size
from coordinator.cli.documents import JsonOption, show_document
from coordinator.cli.load_standing import could_answer, loads_of, not_listed, standing
from coordinator.cli.options import StateOption
from coordinator.cli.tables import Column, Trouble, show_table
from coordinator.cli.telling import tell

COLUMNS = (
    Column("model"), Column("nodes"), Column("split"), Column("dtype"), Column("size", is_number=True),
    Column("state"),
)  # fmt: skip


def models(state_dir: StateOption = None, json_output: JsonOption = False) -> None:
    """List the models on the mesh: on which nodes each is, how large, and whether it could answer now."""
    from coordinator.membership.reach import owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.records import LoadedModels

    state = state_dir or default_state_directory()
    records = LoadedModels(state)
    found, loads = [*records.all(), *records.interrupted()], loads_of(state)
    begun = not_listed(loads, [model.name for model in found])
    if not found and not begun and not json_output:
        tell("no model is loaded; coordinator-cli load MODEL puts one onto the mesh")
        return
    mesh = owner_access(state) if found else None
    listed = []
    for model in found:
        assert mesh is not None
        how = standing(model, mesh, loads)
        listed.append({
            "name": model.name, "node_names": list(model.node_names),
            "split_strategy": model.description.plan.strategy, "dtype": model.description.dtype,
            "total_bytes": model.total_bytes(), "is_ready": could_answer(how), "state": how,
        })  # fmt: skip
    for name, how in begun.items():
        listed.append({
            "name": name, "node_names": [], "split_strategy": None, "dtype": None, "total_bytes": None,
            "is_ready": False, "state": how,
        })  # fmt: skip
    if json_output:
        show_document({"models": listed})
    else:
        show_models(listed)


def show_models(listed: Sequence[Mapping[str, Any]]) -> None:
    """Print the models as a table."""
    rows = [
        (
            one["name"], ", ".join(one["node_names"]), one["split_strategy"] or "", one["dtype"] or "",
            "" if one["total_bytes"] is None else shown_size(one["total_bytes"]),
            one["state"] if one["is_ready"] else Trouble(one["state"]),
        )
        for one in listed
    ]  # fmt: skip
    show_table(COLUMNS, rows)
