"""The `coordinator-cli` program: its verbs, each in a file of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

import typer

from common.program.command_line import CONTEXT_SETTINGS, run_process
from common.program.version import VersionOption
from coordinator.cli.doctor import doctor
from coordinator.cli.generate import generate
from coordinator.cli.load import load
from coordinator.cli.mesh_init import init
from coordinator.cli.mesh_invite import invite
from coordinator.cli.mesh_remove import remove
from coordinator.cli.models import models
from coordinator.cli.nodes import nodes
from coordinator.cli.plan import plan
from coordinator.cli.split import split
from coordinator.cli.status import status
from coordinator.cli.unload import unload
from coordinator.cli.verbs import Verbs


def in_short(verb: Callable[..., object]) -> str:
    """Return what a list of verbs says of one: its first sentence up to a colon; typer would cut it anywhere."""
    return re.split(r"[:.](?:\s|$)", verb.__doc__ or "")[0] + "."


app = typer.Typer(cls=Verbs, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None)
for verb in (generate, split, load, unload, models, nodes, plan, doctor, status):
    app.command(short_help=in_short(verb))(verb)
MESH = "Make a mesh of devices, let devices in, remove them."
mesh = typer.Typer(
    add_completion=False, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None, invoke_without_command=True,
    help=MESH, short_help=MESH,
)  # fmt: skip


@mesh.callback()
def _mesh_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for mesh_verb in (init, invite, remove):
    mesh.command(short_help=in_short(mesh_verb))(mesh_verb)
app.add_typer(mesh, name="mesh")


@app.callback(invoke_without_command=True)
def coordinator_cli(context: typer.Context, version: VersionOption = False) -> None:
    """Run a language model larger than any of your devices on the devices you own.

    Exit codes: 0 done; 2 bad input; 3 the model; 4 the slices on disk; 5 a node; 6 not enough of something;
    7 somebody who is not trusted; 70 a bug; 130 interrupted.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> NoReturn:
    """Run the program and exit with its documented code."""
    run_process(app, "coordinator-cli")
