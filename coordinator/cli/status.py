"""`coordinator-cli status`: how the mesh is, in a few lines."""

from __future__ import annotations

from common.errors import NodeLost, NodeTimeout, ShardmeshError
from coordinator.cli.load_standing import loads_of, not_listed, standing
from coordinator.cli.options import StateOption


def status(state_dir: StateOption = None) -> None:
    """Say in a few lines how the mesh is: the coordinator, each node and what it serves, each model."""
    from coordinator.membership.reach import is_alive, owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.node_slices import list_slices
    from coordinator.models.records import LoadedModels

    state = state_dir or default_state_directory()
    mesh, records = owner_access(state), LoadedModels(state)
    models, loads = [*records.all(), *records.interrupted()], loads_of(state)
    names = {
        description.slice_id: f"{model.name}, rank {description.rank} of {description.plan.world_size}"
        for model in models
        for description in model.slices()
    }
    nodes = mesh.nodes()
    alive = sum(map(is_alive, nodes))
    print(f"mesh {mesh.mesh_name}: the coordinator runs; {alive} of {len(nodes)} nodes are alive")
    for node in nodes:
        try:
            held = list_slices(mesh, node.name)
            what = held.trouble or names.get(
                held.served_slice_id, "no model" if not held.served_slice_id else "a slice"
            )
            print(f"  {node.name}: serves {what}; {held.free_bytes / 1e9:.1f} GB free")
        except (NodeLost, NodeTimeout):
            print(f"  {node.name}: not reached")
        except ShardmeshError as error:
            print(f"  {node.name}: {error}")
    for model in models:
        print(f"  model {model.name} on {', '.join(model.node_names)}: {standing(model, mesh, loads)}")
    for sentence in not_listed(loads, [model.name for model in models]):
        print(f"  {sentence}")
