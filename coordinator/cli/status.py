"""`coordinator-cli status`: how the mesh is, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from common.errors import EXIT_NODE, NodeLost, NodeTimeout, ShardmeshError
from coordinator.cli.documents import JsonOption, show_document
from coordinator.cli.load_standing import could_answer, loads_of, not_listed, standing
from coordinator.cli.options import StateOption
from coordinator.cli.status_table import show_status

if TYPE_CHECKING:  # they import gRPC, and --help must not wait for that
    from coordinator.membership.reach import MeshAccess
    from protos.shardmesh.v1 import mesh_pb2


def status(state_dir: StateOption = None, json_output: JsonOption = False) -> None:
    """Say in a few lines how the mesh is: the coordinator, each node and what it serves, each model.

    Exit code 5 when there are models and none of them can answer.
    """
    from coordinator.membership.reach import owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.records import LoadedModels

    state = state_dir or default_state_directory()
    mesh, records = owner_access(state), LoadedModels(state)
    models, loads = [*records.all(), *records.interrupted()], loads_of(state)
    parts = {
        description.slice_id: (model.name, description.rank, description.plan.world_size)
        for model in models
        for description in model.slices()
    }
    found: dict[str, Any] = {
        "mesh": mesh.mesh_name, "nodes": [_node(node, mesh, parts) for node in mesh.nodes()], "models": [],
    }  # fmt: skip
    for model in models:
        how = standing(model, mesh, loads)
        found["models"].append(
            {"name": model.name, "node_names": list(model.node_names), "is_ready": could_answer(how), "state": how}
        )
    for name, how in not_listed(loads, [model.name for model in models]).items():
        found["models"].append({"name": name, "node_names": [], "is_ready": False, "state": how})
    (show_document if json_output else show_status)(found)
    if models and not any(model["is_ready"] for model in found["models"]):
        raise typer.Exit(EXIT_NODE)


def _node(node: mesh_pb2.Node, mesh: MeshAccess, parts: dict[str, tuple[str, int, int]]) -> dict[str, Any]:
    """Return what a node says of itself now: a heartbeat of some seconds ago says less.

    Args: parts: by slice, of which model it is, its rank, of how many.
    """
    from coordinator.models.node_slices import list_slices

    found: dict[str, Any] = {
        "name": node.name, "is_alive": True, "serves_model": None, "serves_rank": None, "world_size": None,
        "serves_unknown_slice": False, "free_disk_bytes": None, "trouble": None,
    }  # fmt: skip
    try:
        held = list_slices(mesh, node.name)
    except (NodeLost, NodeTimeout):
        return {**found, "is_alive": False, "trouble": "not reached"}
    except ShardmeshError as error:
        return {**found, "trouble": str(error)}
    found.update(free_disk_bytes=held.free_bytes, trouble=held.trouble or None)
    if held.served_slice_id in parts:
        model, rank, world_size = parts[held.served_slice_id]
        found.update(serves_model=model, serves_rank=rank, world_size=world_size)
    else:
        found["serves_unknown_slice"] = bool(held.served_slice_id)
    return found
