"""`coordinator-cli mesh init`, `invite`, `remove`, and `coordinator-cli nodes`: who belongs to the mesh."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from common.errors import InputError
from common.program.command_line import CONTEXT_SETTINGS

if TYPE_CHECKING:  # it imports gRPC, and --help must not wait for that
    from coordinator.membership.owner_client import OwnerClient

app = typer.Typer(
    add_completion=False, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None, no_args_is_help=True,
    help="Make a mesh of devices, let devices in, remove them.",
)  # fmt: skip

StateOption = Annotated[
    Path | None, typer.Option("--state-dir", help="Where the mesh is kept, if not in the usual directory.")
]
SECONDS = {"s": 1, "m": 60, "h": 3600}


@app.command()
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
    print(f"mesh {name} is made in {directory}; keep it to yourself: its key lets devices in", file=sys.stderr)
    there = as_typed(state_dir)
    print(f"next: coordinator --master-ip 0.0.0.0{there}, and coordinator-cli mesh invite{there} for each device",
          file=sys.stderr)  # fmt: skip


@app.command()
def invite(
    lifetime: Annotated[str, typer.Option(help="How long the token can be used, such as 15m or 2h.")] = "15m",
    no_address: Annotated[
        bool,
        typer.Option("--no-address", help="A shorter token, for devices on the same home network: they look around."),
    ] = False,
    state_dir: StateOption = None,
) -> None:
    """Print a token that lets one device in, once. On the device: shardnode join TOKEN"""
    with _owner(state_dir) as coordinator:
        token = coordinator.invite(_seconds(lifetime), without_addresses=no_address)
    print(f"on the device, within {lifetime}:", file=sys.stderr)
    print(f"shardnode join {token}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The node, as `coordinator-cli nodes` calls it.")],
    state_dir: StateOption = None,
) -> None:
    """Remove a node: its certificate is good for nothing from now on."""
    with _owner(state_dir) as coordinator:
        coordinator.remove(name)
    print(f"{name} is removed", file=sys.stderr)


def nodes(state_dir: StateOption = None) -> None:
    """List the nodes of the mesh: where each is, what it has, when it was last heard."""
    with _owner(state_dir) as coordinator:
        listed = coordinator.nodes()
    if not listed.nodes:
        print(f"mesh {listed.mesh_name} has no nodes yet; coordinator-cli mesh invite lets one in", file=sys.stderr)
        return
    table = Table(box=None, pad_edge=False)
    for title in TITLES:
        table.add_column(title, justify="left" if title in TITLES[:3] else "right", overflow="fold")
    for node in listed.nodes:
        device = node.device
        table.add_row(
            node.name, node.address or "-", _state(node.silent_seconds), str(node.rank) if node.rank >= 0 else "-",
            str(device.core_count), f"{device.free_memory_bytes / 1e9:.1f}/{device.memory_bytes / 1e9:.1f}",
            f"{device.free_disk_bytes / 1e9:.0f}", device.version,
        )  # fmt: skip
    Console().print(table)


TITLES = ("node", "address", "state", "rank", "cores", "GB free", "disk GB", "version")


def as_typed(state_dir: Path | None) -> str:
    """Return the option that the next command needs to find the same mesh."""
    return "" if state_dir is None else f" --state-dir {shlex.quote(str(state_dir))}"


def _owner(state_dir: Path | None) -> OwnerClient:
    """Return the coordinator that keeps its mesh there."""
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    return OwnerClient(state_dir or default_state_directory())


def _state(silent_seconds: float) -> str:
    if silent_seconds < 0:
        return "not heard yet"
    from coordinator.membership.reach import SILENT_AFTER_SECONDS

    return "alive" if silent_seconds <= SILENT_AFTER_SECONDS else f"silent for {silent_seconds:.0f} s"


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d{1,6})([smh])", text)
    if not match:
        raise InputError(f"--lifetime is '{text}'; write a number and s, m or h, such as 15m")
    return int(match[1]) * SECONDS[match[2]]
