"""Does a person want what cannot be undone? Asked on a terminal; elsewhere --yes is the answer, or nothing happens.

Covers: asking, and what goes with a node or a model. Does not cover: doing it (mesh_remove.py, unload.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from common.errors import InputError
from coordinator.cli.telling import tell

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
    """Return what goes for good with a loaded model, in a sentence without its end; empty: it can be loaded again."""
    from coordinator.models.records import LoadedModels

    model = LoadedModels(state).find(name)
    if model is None or not model.source:
        return ""
    try:
        if Path(model.source).exists():
            return ""
    except OSError:  # it is another user's: nobody can tell
        return ""
    return (f"{model.source}, from which {name} was loaded, is not there any more: what the nodes hold may be the only "
            "copy of it, and unload removes that")  # fmt: skip
