"""`coordinator-cli unload`: has the coordinator program take a model off the mesh."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.consent import YesOption, ask_first, loss_of_model
from coordinator.cli.options import StateOption
from coordinator.cli.telling import tell


def unload(
    name: Annotated[str, typer.Argument(help="The model, as `coordinator-cli models` calls it.", show_default=False)],
    yes: YesOption = False,
    state_dir: StateOption = None,
) -> None:
    """Take a model off the mesh, or what an interrupted load has left: its slices go from every node and from here.

    A load of it that is under way is stopped first. The coordinator program does the work: it goes on when this command
    is interrupted.
    """
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    state = state_dir or default_state_directory()
    if loss := loss_of_model(name, state):
        ask_first(loss, kept=f"{name} stays", yes=yes)
    with OwnerClient(state) as coordinator:
        try:
            missed = coordinator.unload(name)
        except KeyboardInterrupt:
            tell(f"\n{name}: the coordinator goes on taking it off; coordinator-cli models says when it is gone")
            raise
    for node in missed:
        tell(f"{node} was not reached and keeps its slice, until the next load or unload that reaches it")
    tell(f"{name} is unloaded")
