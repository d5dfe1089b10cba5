"""Does a person want what cannot be undone? Asked on a terminal; elsewhere --yes is the answer, or nothing happens.

Covers: asking, and what goes with a node or a model. Does not cover: doing it (mesh_remove.py, unload.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import InputError, ShardmeshError
from common.wording import counted
from coordinator.cli.telling import tell

if TYPE_CHECKING:  # it imports gRPC, and --help must not wait for that
    from coordinator.models.records import LoadedModel

STATS_SECONDS = 4.0
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first, whatever would be lost.")]


def ask_first(loss: str, *, kept: str, yes: bool) -> None:
    """Return if it is to be done. Args: loss: what would be lost, a sentence without its end; kept: what stays if not.

    Raises: InputError: it is not.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError(f"{loss}; to do it all the same, pass --yes")
    tell(f"{loss}.")
    print("Do it all the same? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InputError(f"{kept}: nothing was changed")


def loss_of_node(name: str, state: Path) -> str:
    """Return what goes with a node of the mesh, in a sentence without its end; empty: nothing."""
    from coordinator.models.records import LoadedModels

    records = LoadedModels(state)
    try:
        needing = [model for model in (*records.all(), *records.interrupted()) if name in model.node_names]
    except InputError as error:
        return f"which models need {name} cannot be told ({error})"
    if not needing:
        return ""
    parts = [f"{model.name} (rank {model.node_names.index(name)} of {len(model.node_names)})" for model in needing]
    models, they, have = ("model", "it", "has") if len(parts) == 1 else ("models", "they", "have")
    return (f"{name} holds a part of the {models} {', '.join(parts)}: without {name} {they} cannot answer, and {have} "
            "to be loaded again onto other nodes")  # fmt: skip


def loss_of_model(name: str, state: Path) -> str:
    """Return what goes with a loaded model, in a sentence without its end; empty: it can be loaded again."""
    from coordinator.models.records import LoadedModels

    model = LoadedModels(state).find(name)
    if model is None:
        return ""
    losses = []
    if model.source and not _may_be_there(model.source):
        losses.append(f"{model.source}, from which {name} was loaded, is not there any more: what the nodes hold may "
                      "be the only copy of it, and unload removes that")  # fmt: skip
    if count := _answers_under_way(model, state):
        losses.append(f"{name} is answering: unload ends {counted(count, 'answer')} under way")
    return "; ".join(losses)


def _may_be_there(source: str) -> bool:
    try:
        return Path(source).exists()
    except OSError:  # it is another user's: nobody can tell
        return True


def _answers_under_way(model: LoadedModel, state: Path) -> int:
    """Return how many sequences of a model are open on its first node; 0 where that does not say."""
    from coordinator.membership.reach import owner_access
    from protos.shardmesh.v1 import shard_pb2
    from protos.shardmesh.v1.shard_pb2_grpc import ShardServiceStub

    try:
        stats: shard_pb2.GetStatsResponse = owner_access(state).ask(
            model.node_names[0], lambda to: ShardServiceStub(to).GetStats, shard_pb2.GetStatsRequest(), STATS_SECONDS
        )
    except ShardmeshError:
        return 0
    about = model.description
    is_its = (stats.model_identity, stats.plan_digest) == (about.model_identity, about.plan.digest)
    return stats.open_sequence_count if is_its else 0
