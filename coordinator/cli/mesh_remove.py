"""`coordinator-cli mesh remove`: a device is no member any more."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.options import StateOption
from coordinator.cli.telling import tell


def remove(
    name: Annotated[str, typer.Argument(help="The node, as `coordinator-cli nodes` calls it.")],
    state_dir: StateOption = None,
) -> None:
    """Remove a node: its certificate is good for nothing from now on."""
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    with OwnerClient(state_dir or default_state_directory()) as coordinator:
        coordinator.remove(name)
    tell(f"{name} is removed")
