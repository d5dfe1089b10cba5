"""`coordinator-cli unload`: a model off the mesh."""

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
    """Take a model off the mesh, or what an interrupted load has left: its slices go from every node and from here."""
    from coordinator.membership.reach import owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.models.records import LoadedModels
    from coordinator.models.unloading import unload as unload_model

    state = state_dir or default_state_directory()
    if loss := loss_of_model(name, state):
        ask_first(loss, kept=f"{name} stays", yes=yes)
    for node in unload_model(name, LoadedModels(state), owner_access(state)):
        tell(f"{node} was not reached and keeps its slice, until the next load or unload that reaches it")
    tell(f"{name} is unloaded")
