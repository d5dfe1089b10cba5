"""`coordinator-cli plan`, `doctor` and `status`: what a model would take, what limits the mesh, how it is."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from common.errors import NodeLost, NodeTimeout, PromptTooLong, ShardmeshError
from coordinator.cli.mesh import StateOption
from coordinator.cli.options import WeightsDtypeOption, WireDtypeOption, tell

if TYPE_CHECKING:  # they import torch, and --help must not wait for that
    from common.weights.slice_description import SliceDescription
    from coordinator.planning.prediction import Prediction

PromptTokensOption = Annotated[int, typer.Option(help="Tokens of the prompt that times are predicted for.", min=1)]
LengthOption = Annotated[int, typer.Option(help="Tokens of its answer.", min=1)]


def plan(
    model: Annotated[
        Path, typer.Argument(help="A model's directory (config.json alone will do), or a .gguf.", show_default=False)
    ],
    devices: Annotated[
        Path | None,
        typer.Option(help="TOML file that describes the devices; without, the mesh's nodes are measured."),
    ] = None,
    split_strategy: Annotated[
        str, typer.Option(help="Who holds how much: uniform, ratio:3,1, memory or measured.")
    ] = "measured",
    weights_dtype: WeightsDtypeOption = None,
    wire_dtype: WireDtypeOption = "float32",
    prompt_tokens: PromptTokensOption = 128,
    length: LengthOption = 128,
    state_dir: StateOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Say what a model would take on each device and how fast it would be, before anything is moved.

    Example: coordinator-cli plan models/my-model --devices deploy/config/devices.toml
    """
    from coordinator.membership.reach import owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.planning.devices import read_devices
    from coordinator.planning.outline import outline_of
    from coordinator.planning.prediction import Workload, predict
    from coordinator.planning.strategies import plan_for
    from coordinator.planning.survey import survey
    from coordinator.ranks.wire_dtype import wire_item_bytes

    outline = outline_of(model)
    description = outline.description(weights_dtype)
    most = outline.spec.max_position_count
    if prompt_tokens + length - 1 > most:
        raise PromptTooLong(f"--prompt-tokens {prompt_tokens} and --length {length} do not fit this model's context of "
                            f"{most}; make one of them smaller")  # fmt: skip
    workload = Workload(
        prompt_tokens=prompt_tokens, length=length, wire_bytes=wire_item_bytes(wire_dtype)
    )  # fmt: skip
    if devices is not None:
        found = read_devices(devices)
    else:
        state = state_dir or default_state_directory()
        mesh = owner_access(state)
        found = survey(mesh, mesh.alive(), state, outline.spec.hidden_size, workload, tell).devices
    chosen = plan_for(description, split_strategy, found, workload)
    description = replace(description, plan=chosen)
    predicted = predict(description, found, workload)
    if json_output:
        print(json.dumps({"plan": chosen.to_json(), **asdict(predicted)}))
    else:
        show_plan(description, predicted)


def show_plan(description: SliceDescription, predicted: Prediction, *, to_stderr: bool = False) -> None:
    """Print who holds what, what that takes, and what limits it."""
    console = Console(stderr=to_stderr, soft_wrap=True, highlight=False)
    table = Table(box=None, pad_edge=False)
    titles = ("node", "heads", "FFN columns", "disk GB", "memory GB", "from memory ms", "from disk ms", "link ms")
    for title in titles:
        table.add_column(title, justify="left" if title == "node" else "right")
    for part, share in zip(predicted.devices, description.plan.shares, strict=True):
        table.add_row(
            part.name + ("" if part.fits else " (does not fit)"), str(share.query_head_count),
            str(share.ffn_column_count), f"{part.slice_bytes / 1e9:.2f}", f"{part.peak_memory_bytes / 1e9:.2f}",
            f"{1000 * part.compute_seconds:.0f}", f"{1000 * part.disk_seconds:.0f}", f"{1000 * part.link_seconds:.0f}",
        )  # fmt: skip
    console.print(table)
    token = predicted.seconds_per_token
    console.print(f"first token after {predicted.ttft_seconds:.2f} s, then {1 / token:.1f} tokens/s "
                  f"({1000 * token:.0f} ms each); times above are of one token")  # fmt: skip
    console.print(f"what limits it: {predicted.bottleneck}", markup=False)


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


def status(state_dir: StateOption = None) -> None:
    """Say in a few lines how the mesh is: the coordinator, each node and what it serves, each model."""
    from coordinator.membership.reach import is_alive, owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.node_slices import list_slices, state_of
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
        print(f"  model {model.name} on {', '.join(model.node_names)}: {state_of(model, mesh)}")
