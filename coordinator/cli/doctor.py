"""`coordinator-cli doctor`: what limits the mesh, measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from coordinator.cli.documents import JsonOption, show_document
from coordinator.cli.options import RoundsOption, StateOption
from coordinator.cli.tables import Column, show_table
from coordinator.cli.telling import say, tell

TITLES = ("round trip ms", "link Mbit/s", "memory GB/s", "disk GB/s", "GFLOP/s")
COLUMNS = (Column("node"), *(Column(title, is_number=True) for title in TITLES))


def doctor(
    measure: Annotated[
        bool, typer.Option(help="Measure devices too; without, links only, in a moment: the rest as it was measured.")
    ] = True,
    rounds: RoundsOption = "auto",
    state_dir: StateOption = None,
    json_output: JsonOption = False,
) -> None:
    """Measure every node's link, memory and disk, and say in one sentence what limits the model that is loaded.

    It takes some seconds of all devices: best while nobody waits for an answer.
    """
    from coordinator.membership.reach import is_alive, owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.records import LoadedModels
    from coordinator.planning.prediction import Workload, predict
    from coordinator.planning.survey import survey
    from coordinator.ranks.travel import Travel

    travel = Travel(rounds=rounds)
    state = state_dir or default_state_directory()
    mesh, workload = owner_access(state), Workload()
    loaded, alive = LoadedModels(state).all(), {node.name: node for node in mesh.alive()}
    missing = [name for name in loaded[0].node_names if name not in alive] if loaded else []
    nodes = [alive[name] for name in loaded[0].node_names] if loaded and not missing else list(alive.values())
    hidden_size = loaded[0].description.spec.hidden_size if loaded else 2048
    surveyed = survey(
        mesh, nodes, state, hidden_size, workload, tell, measure_devices=measure, rounds=travel.rounds
    )  # fmt: skip
    found: dict[str, Any] = {
        "nodes": [_node(node.name, surveyed.links[node.name], surveyed.speeds[node.name]) for node in nodes],
        "not_heard": [node.name for node in mesh.nodes() if not is_alive(node)], "model": None,
    }  # fmt: skip
    if loaded:
        found["model"] = {
            "name": loaded[0].name, "missing_node_names": missing, "tokens_per_second": None, "bottleneck": None,
        }  # fmt: skip
        if not missing:
            predicted = predict(loaded[0].description, surveyed.devices, workload)
            found["model"].update(
                tokens_per_second=1 / predicted.seconds_per_token, bottleneck=predicted.bottleneck
            )  # fmt: skip
    (show_document if json_output else show_findings)(found)


def _node(name: str, link: Any, speeds: Any) -> dict[str, Any]:
    """Return what was measured of a node. Args: link: a Link of ranks/transports/echo.py; speeds: DeviceSpeeds."""
    return {
        "name": name, "round_trip_seconds": link.round_trip_seconds, "link_bytes_per_second": link.bytes_per_second,
        "memory_bytes_per_second": speeds.memory_bytes_per_second,
        "disk_bytes_per_second": speeds.disk_bytes_per_second, "arithmetic_per_second": speeds.arithmetic_per_second,
    }  # fmt: skip


def show_findings(found: Mapping[str, Any]) -> None:
    """Print what `doctor --json` would, for people."""
    show_table(COLUMNS, [
        (
            node["name"], f"{1000 * node['round_trip_seconds']:.1f}", f"{8 * node['link_bytes_per_second'] / 1e6:.0f}",
            f"{node['memory_bytes_per_second'] / 1e9:.1f}", f"{node['disk_bytes_per_second'] / 1e9:.2f}",
            f"{node['arithmetic_per_second'] / 1e9:.0f}",
        )
        for node in found["nodes"]
    ])  # fmt: skip
    say("")
    for name in found["not_heard"]:
        say(f"{name} is not heard: is its shardnode running, and does it reach this coordinator?")
    model = found["model"]
    if model and model["missing_node_names"]:
        say(f"{model['name']} cannot answer without {', '.join(model['missing_node_names'])}; start what is missing, "
            "or load it again")  # fmt: skip
    elif model:
        say(f"{model['name']}: about {model['tokens_per_second']:.1f} tokens/s; what limits it: {model['bottleneck']}")
