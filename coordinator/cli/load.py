"""`coordinator-cli load`: a model onto the mesh."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.compute.lean_torch import import_torch_lean
from common.errors import InputError
from common.program.logs import configure_logs
from common.program.path_options import path_argument
from coordinator.cli.options import LogLevelOption, StateOption, WeightsDtypeOption, as_typed
from coordinator.cli.telling import tell

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
    model: Annotated[Path, path_argument(help="A Hugging Face model directory, or a .gguf file.")],
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
                checkpoint, request, models, mesh,
                report=lambda name, progress: report(name, progress.arrived_bytes, progress.total_bytes),
                report_own=lambda done, total: report(OWN_SLICE, done, total),
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
    from coordinator.cli.plan_table import show_plan
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


def _names(text: str) -> Sequence[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError("--nodes names no node; write --nodes kitchen,attic")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--nodes names {twice[0]} more than once; a node serves one share of a model")
    return names
