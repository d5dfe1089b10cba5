"""`coordinator-cli mesh invite`: a token that lets one device in, or a certificate for somebody who reads metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from common.errors import InputError
from common.program.path_options import path_option
from common.wording import plain
from coordinator.cli.options import StateOption
from coordinator.cli.telling import tell

SECONDS = {"s": 1, "m": 60, "h": 3600}
LIFETIME = "15m"
VALID_DAYS = 365


def invite(
    lifetime: Annotated[str, typer.Option(help="How long the token can be used, such as 15m or 2h.")] = LIFETIME,
    no_address: Annotated[
        bool,
        typer.Option("--no-address", help="A shorter token, for devices on the same home network: they look around."),
    ] = False,
    observer: Annotated[
        str,
        typer.Option(
            metavar="NAME", show_default=False,
            help="Let no device in, but somebody who reads metrics and nothing else, such as prometheus.",
        ),
    ] = "",
    out: Annotated[
        Path | None, path_option(help="With --observer: where its certificate, key and the mesh's authority go.")
    ] = None,
    valid_days: Annotated[int, typer.Option(help="With --observer: how long its certificate is good.")] = VALID_DAYS,
    state_dir: StateOption = None,
) -> None:  # fmt: skip
    """Print a token that lets one device in, once. On the device: shardnode join TOKEN

    Where that device has other users, who can read what is typed: shardnode join - and the token on stdin.

    With --observer: write authority.pem, observer.pem and observer.key, as Prometheus' tls_config takes them.
    """
    if observer:
        if lifetime != LIFETIME or no_address:
            raise InputError("--lifetime and --no-address are for a token; an observer's certificate has --valid-days")
        _invite_observer(observer, out, valid_days, state_dir)
        return
    if out is not None or valid_days != VALID_DAYS:
        raise InputError("--out and --valid-days are for --observer NAME; a token is printed, and has --lifetime")
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    with OwnerClient(state_dir or default_state_directory()) as coordinator:
        invited = coordinator.invite(_seconds(lifetime), without_addresses=no_address)
    token = invited.token
    for note in invited.notes:
        tell(f"warning: {note}")
    tell(f"on the device, within {lifetime}:")
    print(plain(f"shardnode join {token}"))


def _invite_observer(name: str, out: Path | None, valid_days: int, state_dir: Path | None) -> None:
    if out is None:
        raise InputError("--out DIR is missing: a directory for the observer's certificate and key, that only its user "
                         "may enter, such as /etc/prometheus/shardmesh")  # fmt: skip
    from common.trust.certificates import lifetime_of
    from coordinator.membership.observer_files import invite_observer
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    with OwnerClient(state_dir or default_state_directory()) as coordinator:
        is_known = name in [observer.name for observer in coordinator.nodes().observers]
        files = invite_observer(coordinator, name, valid_days, out)
    ends = lifetime_of(files.certificate.read_bytes())[1]
    tell(f"{name} may read metrics until {ends:%Y-%m-%d}, and nothing else; coordinator-cli mesh remove {name} ends "
         "that. For Prometheus:")  # fmt: skip
    if is_known:
        tell(f"note: the certificate that {name} had before stays good beside this one until it ends; any before that "
             "one are refused from now on")  # fmt: skip
    print("scheme: https\ntls_config:")
    for line in files.tls_config():
        print(f"  {plain(line)}")


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d{1,6})([smh])", text)
    if not match:
        raise InputError(f"--lifetime is '{text}'; write a number and s, m or h, such as 15m")
    return int(match[1]) * SECONDS[match[2]]
