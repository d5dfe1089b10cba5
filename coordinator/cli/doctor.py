"""`coordinator-cli doctor`: what limits the mesh, measured."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from coordinator.cli.options import StateOption
from coordinator.cli.telling import tell


def doctor(
    measure: Annotated[
        bool, typer.Option(help="Measure devices too; without, links only, in a moment: the rest as it was measured.")
    ] = True,
    state_dir: StateOption = None,
) -> None:
    """Measure every node's link, memory and disk, and say in one sentence what limits the model that is loaded.

    It takes some seconds of all devices: best while nobody waits for an answer.
    """
    from coordinator.membership.reach import is_alive, owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.records import LoadedModels
    from coordinator.planning.prediction import Workload, predict
    from coordinator.planning.survey import survey

    state = state_dir or default_state_directory()
    mesh, workload = owner_access(state), Workload()
    loaded, alive = LoadedModels(state).all(), {node.name: node for node in mesh.alive()}
    missing = [name for name in loaded[0].node_names if name not in alive] if loaded else []
    nodes = [alive[name] for name in loaded[0].node_names] if loaded and not missing else list(alive.values())
    hidden_size = loaded[0].description.spec.hidden_size if loaded else 2048
    surveyed = survey(mesh, nodes, state, hidden_size, workload, tell, measure_devices=measure)
    table = Table(box=None, pad_edge=False)
    for title in ("node", "round trip ms", "Mbit/s", "memory GB/s", "disk GB/s", "GFLOP/s"):
        table.add_column(title, justify="left" if title == "node" else "right")
    for node in nodes:
        link, device = surveyed.links[node.name], surveyed.speeds[node.name]
        table.add_row(
            node.name, f"{1000 * link.round_trip_seconds:.1f}", f"{8 * link.bytes_per_second / 1e6:.0f}",
            f"{device.memory_bytes_per_second / 1e9:.1f}", f"{device.disk_bytes_per_second / 1e9:.2f}",
            f"{device.arithmetic_per_second / 1e9:.0f}",
        )  # fmt: skip
    Console().print(table)
    for node in mesh.nodes():
        if not is_alive(node):
            print(f"{node.name} is not heard: is its shardnode running, and does it reach this coordinator?")
    if missing:
        print(f"{loaded[0].name} cannot answer without {', '.join(missing)}; start what is missing, or load it again")
    elif loaded:
        predicted = predict(loaded[0].description, surveyed.devices, workload)
        print(f"{loaded[0].name}: about {1 / predicted.seconds_per_token:.1f} tokens/s; what limits it: "
              f"{predicted.bottleneck}")  # fmt: skip
