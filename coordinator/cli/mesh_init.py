"""`coordinator-cli mesh init`: a mesh of devices begins on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.options import StateOption, as_typed
from coordinator.cli.telling import tell


def init(
    name: Annotated[str, typer.Option(help="What the mesh is called: a-z, 0-9 and dashes.")] = "home",
    state_dir: StateOption = None,
) -> None:
    """Make a new mesh, with a certificate authority of its own, on this machine.

    Then start the coordinator: coordinator --master-ip 0.0.0.0
    """
    from coordinator.membership.state import default_state_directory, init_mesh

    directory = state_dir or default_state_directory()
    init_mesh(directory, name)
    tell(f"mesh {name} is made in {directory}; keep it to yourself: its key lets devices in")
    there = as_typed(state_dir)
    tell(f"next: coordinator --master-ip 0.0.0.0{there}, and coordinator-cli mesh invite{there} for each device")
