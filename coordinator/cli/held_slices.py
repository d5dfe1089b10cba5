"""What do the nodes of a mesh hold of models, what of it is served, and what is kept for another plan?

Covers: asking every node, the document and the table, having what is kept go. Does not cover: plans on this disk
(slices.py), which slices `unload` removes (models/unloading.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import NodeError
from common.program.sizes import shown_size
from common.wording import counted
from coordinator.cli.tables import Column, Trouble, show_table
from coordinator.cli.telling import tell

if TYPE_CHECKING:  # gRPC comes with them
    from coordinator.membership.reach import MeshAccess
    from coordinator.models.records import LoadedModels

COLUMNS = (Column("node"), Column("model"), Column("part"), Column("size", is_number=True), Column("state"))
KEPT = "kept"
ID_LETTERS = 12
Slices = dict[tuple[str, str], tuple[str, str]]
"""By node and slice: the model's name and its part, as `1 of 4`."""


def held_document(state_directory: Path) -> dict[str, Any]:
    """Return what every node holds. Raises: InputError: there is no mesh; NodeLost: no coordinator answers."""
    from coordinator.membership.reach import is_alive, owner_access
    from coordinator.models.records import LoadedModels

    mesh, models = owner_access(state_directory), LoadedModels(state_directory)
    slices, names = _known(models)
    return {"nodes": [
        {"name": node.name, **_held(mesh, node.name, slices, names)} if is_alive(node)
        else {"name": node.name, **_nothing("it is not heard")}
        for node in mesh.nodes()
    ]}  # fmt: skip


def remove_kept(state_directory: Path) -> int:
    """Have every node remove what no slice there needs; return the bytes. Raises: as `held_document`."""
    from coordinator.membership.reach import owner_access
    from coordinator.models.node_slices import list_slices, remove_kept_tiles

    mesh, freed_bytes = owner_access(state_directory), 0
    for node in mesh.alive():
        for kept in list_slices(mesh, node.name, with_kept_tiles=True).kept_tiles:
            remove_kept_tiles(mesh, node.name, kept.model_identity)
            freed_bytes += kept.byte_count
    return freed_bytes


def show_held(found: Mapping[str, Any]) -> None:
    """Print a row for each slice, and for what is kept; a node that holds nothing has one too."""
    nodes: Sequence[Mapping[str, Any]] = found["nodes"]
    if not nodes:
        tell("the mesh has no node; coordinator-cli mesh invite lets one in")
        return
    show_table(COLUMNS, [row for node in nodes for row in _rows(node)])
    kept_bytes = sum(one["byte_count"] for node in nodes for one in node["kept"])
    if kept_bytes:
        tell(f"{shown_size(kept_bytes)} on {counted(sum(bool(node['kept']) for node in nodes), 'node')} no slice "
             f"needs: another plan need not send them again, and they go first when room is wanted; --remove {KEPT} "
             "has them go now")  # fmt: skip


def _known(models: LoadedModels) -> tuple[Slices, dict[str, str]]:
    """Return which slices records name, and models' names by their identity."""
    slices: Slices = {}
    names: dict[str, str] = {}
    for model in (*models.attempts(), *models.all()):
        names[model.description.model_identity] = model.name
        for rank, (node, one) in enumerate(zip(model.node_names, model.slices(), strict=True)):
            slices[node, one.slice_id] = model.name, f"{rank + 1} of {len(model.node_names)}"
    return slices, names


def _held(mesh: MeshAccess, node: str, slices: Slices, names: Mapping[str, str]) -> dict[str, Any]:
    from coordinator.models.node_slices import list_slices

    try:
        held = list_slices(mesh, node, with_kept_tiles=True)
    except NodeError as error:
        return _nothing(str(error))
    listed = []
    for one in held.slices:
        model, part = slices.get((node, one.slice_id), (None, None))
        listed.append({
            "slice_id": one.slice_id, "model": model, "part": part, "byte_count": one.byte_count,
            "is_whole": one.is_whole, "is_served": one.slice_id == held.served_slice_id,
        })  # fmt: skip
    kept = [
        {"model": names.get(one.model_identity), "model_identity": one.model_identity, "byte_count": one.byte_count}
        for one in held.kept_tiles
    ]
    return {"slices": listed, "kept": kept, "free_bytes": held.free_bytes, "trouble": held.trouble}


def _nothing(trouble: str) -> dict[str, Any]:
    """Return what is known of a node that nobody could ask."""
    return {"slices": [], "kept": [], "free_bytes": None, "trouble": trouble}


def _rows(node: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (node["name"], one["model"] or f"no record: {one['slice_id'][:ID_LETTERS]}", one["part"] or "",
         shown_size(one["byte_count"]), _state(one))
        for one in node["slices"]
    ] + [
        (node["name"], one["model"] or f"no record: {one['model_identity'][:ID_LETTERS]}", "",
         shown_size(one["byte_count"]), "kept for another plan")
        for one in node["kept"]
    ]  # fmt: skip
    if node["trouble"]:
        rows.append((node["name"], "", "", "", Trouble(node["trouble"])))
    return rows or [(node["name"], "", "", "", "holds nothing")]


def _state(slice_: Mapping[str, Any]) -> str:
    if not slice_["is_whole"]:
        return "arriving"
    return "served" if slice_["is_served"] else "not served"
