"""`coordinator-cli load`, `unload`, `models`: a model onto the mesh, off it, and which are there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from common.compute.lean_torch import import_torch_lean
from common.errors import InputError
from common.program.logs import configure_logs
from coordinator.cli.mesh import StateOption, as_typed
from coordinator.cli.options import LogLevelOption, WeightsDtypeOption, tell

if TYPE_CHECKING:  # they import gRPC, and --help must not wait for that
    from common.model.plan import Plan
    from common.weights.slice_description import SliceDescription
    from coordinator.membership.reach import MeshAccess
    from protos.shardmesh.v1 import mesh_pb2

OWN_SLICE = "coordinator's own slice"
NodesOption = Annotated[
    str | None,
    typer.Option("--nodes", help="These nodes, in this order: kitchen,attic; by default all that are alive."),
]


def load(
    model: Annotated[Path, typer.Argument(help="A Hugging Face model directory, or a .gguf file.", show_default=False)],
    name: Annotated[
        str, typer.Option(help="What the model is called on the mesh; its directory's name by default.")
    ] = "",
    nodes: NodesOption = None,
    split_strategy: Annotated[
        str | None,
        typer.Option(
            help="Who holds how much: uniform, ratio:3,1 (a number per node), memory (as much as each can hold), or "
            "measured (the fastest). Default: as it was loaded before, else measured.",
            show_default=False,
        ),
    ] = None,
    weights_dtype: WeightsDtypeOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Look at every byte that nodes have already; send again what is damaged.")
    ] = False,
    state_dir: StateOption = None,
    log_level: LogLevelOption = "warning",
) -> None:
    """Put a model onto the mesh: cut it, send each node its slice, have them serve it.

    What a node has already is not sent again, so after a break the same command goes on where it stopped, and after a
    restart it has nothing to do. Once it is loaded, the model's own files are not needed any more.
    Example: coordinator-cli load models/my-model --split-strategy ratio:2,1
    """
    configure_logs(log_level)
    from coordinator.checkpoints.model_place import find_model

    find_model(model)  # a mistake is told before torch is imported
    import_torch_lean()
    # Here and not at the top: they import torch, and --help must not wait for that.
    from coordinator.checkpoints.checkpoint import open_checkpoint
    from coordinator.cli.progress import node_progress
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.reach import owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.loading import LoadRequest
    from coordinator.models.loading import load as load_model
    from coordinator.models.records import LoadedModels, name_for
    from coordinator.planning.outline import outline
    from coordinator.shipping.slice_sender import Transferred

    state = state_dir or default_state_directory()
    mesh = owner_access(state)
    with closing(open_checkpoint(model)) as checkpoint:
        members = [mesh.node(name) for name in _names(nodes)] if nodes is not None else _alive(mesh)
        names = [member.name for member in members]
        models, called = LoadedModels(state), name_for(model, name)
        description = outline(checkpoint).description(weights_dtype)
        plan = models.planned(called, description, names) if split_strategy is None else None
        if plan is None:
            plan = _planned(description, split_strategy or "measured", mesh, members, state)
        request = LoadRequest(
            model=model, name=called, description=replace(description, plan=plan), node_names=names, verify=verify
        )
        with node_progress([OWN_SLICE, *request.node_names]) as report:
            arrivals = load_model(
                checkpoint, request, models, mesh, report=report,
                report_own=lambda done, total: report(OWN_SLICE, Transferred(total_bytes=total, arrived_bytes=done)),
            )  # fmt: skip
    for arrival in arrivals:
        what = f"{arrival.sent_bytes / 1e6:.0f} of {arrival.total_bytes / 1e6:.0f} MB sent"
        tell(f"{arrival.name}: {what if arrival.sent_bytes else 'all was there'}")
    with OwnerClient(state) as coordinator:
        address = coordinator.nodes().coordinator_address
    tell(f"{request.name} is loaded; ask it: coordinator-cli generate --coordinator {address}{as_typed(state_dir)} "
         "--prompt ...")  # fmt: skip


def _alive(mesh: MeshAccess) -> Sequence[mesh_pb2.Node]:
    """Return the nodes that are alive, and say who is not and therefore left out."""
    alive = mesh.alive()
    missing = sorted({node.name for node in mesh.nodes()} - {node.name for node in alive})
    if missing:
        tell(f"not alive, so left out: {', '.join(missing)}")
    return alive


def _planned(
    description: SliceDescription, strategy: str, mesh: MeshAccess, members: Sequence[mesh_pb2.Node], state: Path
) -> Plan:
    """Return who holds what; where that follows from measurements, they are made and the choice is shown."""
    from common.model.plan import make_plan
    from coordinator.cli.plan import show_plan
    from coordinator.planning.prediction import Workload, predict
    from coordinator.planning.strategies import MEASURED, MEMORY, plan_for
    from coordinator.planning.survey import survey

    if strategy not in (MEASURED, MEMORY):
        return make_plan(description.spec, strategy, len(members))
    workload = Workload()
    devices = survey(mesh, members, state, description.spec.hidden_size, workload, tell).devices
    description = replace(description, plan=plan_for(description, strategy, devices, workload))
    show_plan(description, predict(description, devices, workload), to_stderr=True)
    return description.plan


def unload(
    name: Annotated[str, typer.Argument(help="The model, as `coordinator-cli models` calls it.", show_default=False)],
    state_dir: StateOption = None,
) -> None:
    """Take a model off the mesh, or what an interrupted load has left: its slices go from every node and from here."""
    from coordinator.membership.reach import owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.records import LoadedModels
    from coordinator.models.unloading import unload as unload_model

    state = state_dir or default_state_directory()
    for node in unload_model(name, LoadedModels(state), owner_access(state)):
        tell(f"{node} was not reached and keeps its slice, until the next load or unload that reaches it")
    tell(f"{name} is unloaded")


def models(state_dir: StateOption = None) -> None:
    """List the models on the mesh: on which nodes each is, how large, and whether it could answer now."""
    from coordinator.membership.reach import owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.node_slices import state_of
    from coordinator.models.records import LoadedModels

    state = state_dir or default_state_directory()
    records = LoadedModels(state)
    found = [*records.all(), *records.interrupted()]
    if not found:
        tell("no model is loaded; coordinator-cli load MODEL puts one onto the mesh")
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
            f"{model.total_bytes() / 1e9:.1f}", state_of(model, mesh),
        )  # fmt: skip
    Console().print(table)


def _names(text: str) -> Sequence[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError("--nodes names no node; write --nodes kitchen,attic")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--nodes names {twice[0]} more than once; a node serves one share of a model")
    return names
