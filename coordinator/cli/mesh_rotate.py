"""`coordinator-cli mesh rotate`: another authority for the mesh, while it runs, without anybody joining again."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from coordinator.cli.options import StateOption
from coordinator.cli.telling import tell

LOOK_SECONDS = 1.0


def rotate(
    leave_behind: Annotated[
        bool, typer.Option("--leave-behind", help="Wait for no node that is off: it joins again with a new token.")
    ] = False,
    state_dir: StateOption = None,
) -> None:
    """Make another authority for the mesh, such as when its key may have been seen, or before it ends.

    Nodes get new certificates over the old one by themselves, within seconds; those that are off are waited for. You
    may interrupt this: the coordinator goes on by itself, also after a restart, and the same command says how far.
    """
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    with OwnerClient(state_dir or default_state_directory()) as coordinator:
        answer = coordinator.rotate(begin=True, leave_behind=leave_behind)
        told: list[str] = []
        while not answer.is_done:
            waiting = list(answer.waiting)
            if waiting != told:
                tell(f"waiting for {', '.join(waiting)}")
                told = waiting
            time.sleep(LOOK_SECONDS)
            answer = coordinator.rotate(begin=False, leave_behind=leave_behind)
    tell("the mesh has a new authority; tokens of before are worth nothing, observers need its certificate "
         "(coordinator-cli mesh invite --observer NAME), and a new backup should be made")  # fmt: skip
