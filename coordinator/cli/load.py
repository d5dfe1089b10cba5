"""`coordinator-cli load`: has the coordinator program put a model onto the mesh, and shows how that goes on."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import CheckpointError, InputError
from common.program.logs import configure_logs
from common.program.path_options import path_argument
from coordinator.cli.early import check_weights_dtype
from coordinator.cli.options import LogLevelOption, StateOption, WeightsDtypeOption, as_typed
from coordinator.cli.telling import tell

if TYPE_CHECKING:  # they import gRPC, and --help must not wait for that
    from protos.shardmesh.v1 import models_pb2

OWN_SLICE = "coordinator's own slice"
NodesOption = Annotated[
    str | None,
    typer.Option("--nodes", help="These nodes, in this order: kitchen,attic; by default all that are alive."),
]


def load(
    model: Annotated[
        Path,
        path_argument(
            help="A Hugging Face model directory, or a .gguf file; the coordinator program reads it as its own user.",
        ),
    ],
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
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Stop the load of this model that is under way; what has arrived stays.")
    ] = False,
    state_dir: StateOption = None,
    log_level: LogLevelOption = "warning",
) -> None:
    """Put a model onto the mesh: cut it, send each node its slice, have them serve it.

    The coordinator program does the work: it goes on when this command is interrupted or its terminal closes. The same
    command shows how it stands, and `coordinator-cli status` does; --cancel stops it. What a node has already is not
    sent again. Once it is loaded, the model's own files are not needed any more.
    Example: coordinator-cli load models/my-model --split-strategy ratio:2,1
    """
    configure_logs(log_level)
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory
    from coordinator.models.records import name_for

    state = state_dir or default_state_directory()
    path = Path(os.path.abspath(model.expanduser()))
    if cancel:
        is_name = model.name == str(model) and not os.path.exists(path)
        called = name_for(path, name or (str(model) if is_name else ""))
        with OwnerClient(state) as coordinator:
            coordinator.cancel_load(called)
        tell(f"the load of {called} is stopped; what has arrived stays")
        return
    _check(path, weights_dtype)
    from protos.shardmesh.v1 import models_pb2

    called = name_for(path, name)
    request = models_pb2.LoadModelRequest(
        path=os.fsencode(path), name=called, nodes=() if nodes is None else _names(nodes),
        split_strategy=split_strategy or "", weights_dtype=weights_dtype or "", verify=verify,
    )  # fmt: skip
    with OwnerClient(state) as coordinator:
        try:
            _show(coordinator.load(request))
        except KeyboardInterrupt:
            tell(f"\n{called}: the load goes on in the coordinator; to see it, type the same again; to stop it: "
                 f"coordinator-cli load --cancel {called}{as_typed(state_dir)}")  # fmt: skip
            raise
        address = coordinator.nodes().coordinator_address
    there = f"--coordinator {shlex.quote(address)}{as_typed(state_dir)}"
    tell(f"{called} is loaded; ask it: coordinator-cli generate {there} "
         "--prompt ...")  # fmt: skip


def _check(path: Path, weights_dtype: str | None) -> None:
    """Raise what can be told at once, and would otherwise be told by the coordinator a second later."""
    from coordinator.checkpoints.model_place import find_model

    try:
        find_model(path)
    except CheckpointError as error:
        if not isinstance(error.__cause__, PermissionError):  # the coordinator's user has to be able to read it
            raise
    check_weights_dtype(weights_dtype)


def _show(news: Iterable[models_pb2.LoadModelResponse]) -> None:
    """Show how a load goes on until it has ended well. Raises: what it has failed with."""
    from coordinator.cli.progress import node_progress

    names: list[str] = []
    arrivals: Sequence[models_pb2.LoadArrival] = ()
    with ExitStack() as closing:
        report = None
        for one in news:
            part = one.WhichOneof("part")
            if part == "accepted" and sys.stderr.isatty():
                tell(f"{one.accepted.name} is being loaded by the coordinator, which goes on when this command ends")
            elif part == "told":
                tell(one.told)
            elif part == "planned":
                names = [OWN_SLICE, *one.planned.nodes]
                _show_plan(one.planned)
            elif part == "progress":
                report = report or closing.enter_context(node_progress(names))
                progress = one.progress
                report(progress.node or OWN_SLICE, progress.arrived_bytes, progress.total_bytes)
            elif part == "arrivals":
                arrivals = one.arrivals.arrivals
    for arrival in arrivals:
        what = f"{arrival.sent_bytes / 1e6:.0f} of {arrival.total_bytes / 1e6:.0f} MB sent"
        tell(f"{arrival.node}: {what if arrival.sent_bytes else 'all was there'}")


def _show_plan(planned: models_pb2.LoadPlanned) -> None:
    """Show the choice, where it follows from measurements."""
    if not planned.prediction:
        return
    from common.weights.slice_description import SliceDescription
    from coordinator.cli.plan_table import show_plan
    from coordinator.planning.prediction import Prediction

    description = SliceDescription.from_json(json.loads(planned.description))
    show_plan(description, Prediction.from_json(json.loads(planned.prediction)), to_stderr=True)


def _names(text: str) -> Sequence[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError("--nodes names no node; write --nodes kitchen,attic")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--nodes names {twice[0]} more than once; a node serves one share of a model")
    return names
