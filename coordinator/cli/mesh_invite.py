"""`coordinator-cli mesh invite`: a token that lets one device in."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from common.errors import InputError
from common.wording import plain
from coordinator.cli.options import StateOption
from coordinator.cli.telling import tell

SECONDS = {"s": 1, "m": 60, "h": 3600}


def invite(
    lifetime: Annotated[str, typer.Option(help="How long the token can be used, such as 15m or 2h.")] = "15m",
    no_address: Annotated[
        bool,
        typer.Option("--no-address", help="A shorter token, for devices on the same home network: they look around."),
    ] = False,
    state_dir: StateOption = None,
) -> None:
    """Print a token that lets one device in, once. On the device: shardnode join TOKEN"""
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    with OwnerClient(state_dir or default_state_directory()) as coordinator:
        invited = coordinator.invite(_seconds(lifetime), without_addresses=no_address)
    token = invited.token
    for note in invited.notes:
        tell(f"warning: {note}")
    tell(f"on the device, within {lifetime}:")
    print(plain(f"shardnode join {token}"))


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d{1,6})([smh])", text)
    if not match:
        raise InputError(f"--lifetime is '{text}'; write a number and s, m or h, such as 15m")
    return int(match[1]) * SECONDS[match[2]]
