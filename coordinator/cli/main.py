"""The `coordinator-cli` program: its verbs, each in a file of its own, imported when it is the one that was typed.

Does not cover: what they do; verbs that there are not (verbs.py).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

import typer

from common.program.command_line import CONTEXT_SETTINGS, run_process
from common.program.version import VersionOption
from coordinator.cli.verbs import Verbs

Verb = Callable[..., object]
VERBS: dict[str, Callable[[], Verb]] = {
    "generate": lambda: import_module("coordinator.cli.generate").generate,
    "split": lambda: import_module("coordinator.cli.split").split,
    "slices": lambda: import_module("coordinator.cli.slices").slices,
    "load": lambda: import_module("coordinator.cli.load").load,
    "unload": lambda: import_module("coordinator.cli.unload").unload,
    "models": lambda: import_module("coordinator.cli.models").models,
    "nodes": lambda: import_module("coordinator.cli.nodes").nodes,
    "plan": lambda: import_module("coordinator.cli.plan").plan,
    "doctor": lambda: import_module("coordinator.cli.doctor").doctor,
    "why": lambda: import_module("coordinator.cli.why").why,
    "status": lambda: import_module("coordinator.cli.status").status,
    "trace": lambda: import_module("coordinator.cli.trace").trace,
    "quality": lambda: import_module("coordinator.cli.quality").quality,
    "top": lambda: import_module("coordinator.cli.top").top,
}
MESH_VERBS: dict[str, Callable[[], Verb]] = {
    "init": lambda: import_module("coordinator.cli.mesh_init").init,
    "invite": lambda: import_module("coordinator.cli.mesh_invite").invite,
    "remove": lambda: import_module("coordinator.cli.mesh_remove").remove,
    "backup": lambda: import_module("coordinator.cli.mesh_backup").backup,
    "rotate": lambda: import_module("coordinator.cli.mesh_rotate").rotate,
    "restore": lambda: import_module("coordinator.cli.mesh_restore").restore,
}
MESH = "Make a mesh of devices, let devices in, remove them, keep a backup."


def program(words: Sequence[str] = ()) -> typer.Typer:
    """Return the program for a command line: with the verb that it begins with; with all, if it begins otherwise."""
    app = typer.Typer(cls=Verbs, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None)
    app.callback(invoke_without_command=True)(coordinator_cli)
    first = words[0] if words else ""
    for name in [first] if first in VERBS else VERBS:
        verb = VERBS[name]()
        app.command(short_help=_in_short(verb))(verb)
    if first not in VERBS:
        app.add_typer(_mesh(), name="mesh")
    return app


def coordinator_cli(context: typer.Context, version: VersionOption = False) -> None:
    """Run a language model larger than any of your devices on the devices you own.

    Exit codes: 0 done; 2 bad input; 3 the model; 4 the slices on disk; 5 a node; 6 not enough of something;
    7 somebody who is not trusted; 70 a bug; 130 interrupted.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> NoReturn:
    """Run the program and exit with its documented code."""
    run_process(program(sys.argv[1:]), "coordinator-cli")


def _mesh() -> typer.Typer:
    mesh = typer.Typer(
        add_completion=False, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None, invoke_without_command=True,
        help=MESH, short_help=MESH,
    )  # fmt: skip
    mesh.callback()(_mesh_alone)
    for import_verb in MESH_VERBS.values():
        verb = import_verb()
        mesh.command(short_help=_in_short(verb))(verb)
    return mesh


def _mesh_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _in_short(verb: Verb) -> str:
    """Return what a list of verbs says of one: its first sentence up to a colon; typer would cut it anywhere."""
    return re.split(r"[:.](?:\s|$)", verb.__doc__ or "")[0] + "."
