"""`coordinator-cli nodes`: who belongs to the mesh, and how each one is."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from coordinator.cli.options import StateOption
from coordinator.cli.telling import tell

TITLES = ("node", "address", "state", "rank", "cores", "GB free", "disk GB", "version")


def nodes(state_dir: StateOption = None) -> None:
    """List the nodes of the mesh: where each is, what it has, when it was last heard."""
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    with OwnerClient(state_dir or default_state_directory()) as coordinator:
        listed = coordinator.nodes()
    if not listed.nodes:
        tell(f"mesh {listed.mesh_name} has no nodes yet; coordinator-cli mesh invite lets one in")
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


def _state(silent_seconds: float) -> str:
    if silent_seconds < 0:
        return "not heard yet"
    from coordinator.membership.reach import SILENT_AFTER_SECONDS

    return "alive" if silent_seconds <= SILENT_AFTER_SECONDS else f"silent for {silent_seconds:.0f} s"
