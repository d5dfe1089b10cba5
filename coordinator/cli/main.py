"""The `coordinator-cli` program: its verbs, each in a file of its own."""

from __future__ import annotations

import typer

from common.command_line import CONTEXT_SETTINGS, run_program
from coordinator.cli.generate import generate
from coordinator.cli.split import split

app = typer.Typer(
    add_completion=False, no_args_is_help=True, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None,
    help="Run a language model larger than any of your devices on the devices you own.",
)  # fmt: skip
app.command()(generate)
app.command()(split)


@app.callback()
def coordinator_cli() -> None:
    """Run a language model larger than any of your devices on the devices you own.

    Exit codes: 0 done; 2 bad input; 3 the model; 4 the slices on disk; 5 a node; 6 not enough of something;
    70 a bug; 130 interrupted.
    """


def main() -> None:
    """Run the program and exit with its documented code."""
    run_program(app, "coordinator-cli")
