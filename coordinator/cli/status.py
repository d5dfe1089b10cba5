"""`coordinator-cli status`: how the mesh is, in a few lines."""

from __future__ import annotations

import typer

from common.errors import EXIT_NODE, NodeLost, NodeTimeout, ShardmeshError
from coordinator.cli.options import StateOption


def status(state_dir: StateOption = None) -> None:
    """Say in a few lines how the mesh is: the coordinator, each node and what it serves, each model.

    Exit code 5 when there are models and none of them can answer.
    """
    from coordinator.membership.reach import owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.node_slices import READY, list_slices, state_of
    from coordinator.models.records import LoadedModels

    state = state_dir or default_state_directory()
    mesh, records = owner_access(state), LoadedModels(state)
    models = [*records.all(), *records.interrupted()]
    names = {
        description.slice_id: f"{model.name}, rank {description.rank} of {description.plan.world_size}"
        for model in models
        for description in model.slices()
    }
    nodes = mesh.nodes()
    alive, lines = 0, []
    for node in nodes:  # a heartbeat of some seconds ago says less than an answer now
        try:
            held = list_slices(mesh, node.name)
            what = held.trouble or names.get(
                held.served_slice_id, "no model" if not held.served_slice_id else "a slice"
            )
            lines.append(f"  {node.name}: serves {what}; {held.free_bytes / 1e9:.1f} GB free")
            alive += 1
        except (NodeLost, NodeTimeout):
            lines.append(f"  {node.name}: not reached")
        except ShardmeshError as error:
            lines.append(f"  {node.name}: {error}")
            alive += 1
    states = {model.name: state_of(model, mesh) for model in models}
    lines += [f"  model {model.name} on {', '.join(model.node_names)}: {states[model.name]}" for model in models]
    print(f"mesh {mesh.mesh_name}: the coordinator runs; {alive} of {len(nodes)} nodes are alive", *lines, sep="\n")
    if states and READY not in states.values():
        raise typer.Exit(EXIT_NODE)
