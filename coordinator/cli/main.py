"""The `coordinator-cli` program: its verbs, each in a file of its own."""

from __future__ import annotations

from typing import NoReturn

import typer

from common.program.command_line import CONTEXT_SETTINGS, run_process
from coordinator.cli import load, mesh, plan
from coordinator.cli.generate import generate
from coordinator.cli.split import split

app = typer.Typer(
    add_completion=False, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None
)  # fmt: skip
app.command()(generate)
app.command()(split)
app.command()(load.load)
app.command()(load.unload)
app.command()(load.models)
app.command()(mesh.nodes)
app.command()(plan.plan)
app.command()(plan.doctor)
app.command()(plan.status)
app.add_typer(mesh.app, name="mesh")


@app.callback(invoke_without_command=True)
def coordinator_cli(context: typer.Context) -> None:
    """Run a language model larger than any of your devices on the devices you own.

    Exit codes: 0 done; 2 bad input; 3 the model; 4 the slices on disk; 5 a node; 6 not enough of something;
    7 somebody who is not trusted; 70 a bug; 130 interrupted.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> NoReturn:
    """Run the program and exit with its documented code."""
    run_process(app, "coordinator-cli")
