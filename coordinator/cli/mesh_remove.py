"""`coordinator-cli mesh remove`: a device is no member any more, or an observer reads metrics no more."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.consent import YesOption, ask_first, loss_of_node
from coordinator.cli.options import StateOption
from coordinator.cli.telling import tell


def remove(
    name: Annotated[str, typer.Argument(help="The node or the observer, as `coordinator-cli nodes` calls it.")],
    yes: YesOption = False,
    state_dir: StateOption = None,
) -> None:
    """Remove a node or an observer: its certificate is good for nothing from now on.

    Where a loaded model needs a node, you are asked first: without it the model cannot answer. An observer is refused
    by the coordinator at once and by each node with its next heartbeat.
    """
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    state = state_dir or default_state_directory()
    with OwnerClient(state) as coordinator:
        if (
            not yes
            and name in [node.name for node in coordinator.nodes().nodes]
            and (loss := loss_of_node(name, state))
        ):
            ask_first(loss, kept=f"{name} stays", yes=yes)
        coordinator.remove(name)
    tell(f"{name} is removed")
