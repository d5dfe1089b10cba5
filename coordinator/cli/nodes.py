"""`coordinator-cli nodes`: who belongs to the mesh, and how each one is; who may read its metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from coordinator.cli.documents import JsonOption, show_document
from coordinator.cli.options import StateOption
from coordinator.cli.tables import Column, Trouble, show_table
from coordinator.cli.telling import tell

if TYPE_CHECKING:  # it imports gRPC's messages, and --help must not wait for that
    from protos.shardmesh.v1 import mesh_pb2

COLUMNS = (
    Column("node"), Column("address"), Column("state"), Column("rank", is_number=True), Column("cores", is_number=True),
    Column("free memory GB", is_number=True), Column("free disk GB", is_number=True), Column("version", is_number=True),
)  # fmt: skip
OBSERVER_COLUMNS = (Column("observer"), Column("state"))
UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))


def nodes(state_dir: StateOption = None, json_output: JsonOption = False) -> None:
    """List the nodes of the mesh: where each is, what it has, when it was last heard."""
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory

    with OwnerClient(state_dir or default_state_directory()) as coordinator:
        listed = coordinator.nodes()
    if json_output:
        observers = [
            {"name": observer.name, "certificate_expiry_timestamp_seconds": observer.certificate_ends}
            for observer in listed.observers
        ]
        nodes = [document_of(node) for node in listed.nodes]
        show_document({"mesh": listed.mesh_name, "nodes": nodes, "observers": observers})
        return
    if listed.nodes:
        show_nodes(listed.nodes)
    else:
        tell(f"mesh {listed.mesh_name} has no nodes yet; coordinator-cli mesh invite lets one in")
    if listed.observers:
        print()
        show_observers(listed.observers, time.time())


def document_of(node: mesh_pb2.Node) -> dict[str, Any]:
    """Return what is known of a node, for programs."""
    from coordinator.membership.reach import is_alive

    device = node.device
    return {
        "name": node.name, "address": node.address or None, "is_alive": is_alive(node),
        "silent_seconds": node.silent_seconds if node.silent_seconds >= 0 else None,
        "rank": node.rank if node.rank >= 0 else None, "core_count": device.core_count,
        "memory_bytes": device.memory_bytes, "free_memory_bytes": device.free_memory_bytes,
        "free_disk_bytes": device.free_disk_bytes, "version": device.version,
    }  # fmt: skip


def show_nodes(listed: Sequence[mesh_pb2.Node]) -> None:
    """Print the nodes as a table."""
    rows = []
    for node in listed:
        device = node.device
        has_told = device.memory_bytes > 0
        memory = f"{device.free_memory_bytes / 1e9:.1f}/{device.memory_bytes / 1e9:.1f}"
        rows.append((
            node.name, node.address, _state(node.silent_seconds), str(node.rank) if node.rank >= 0 else "",
            str(device.core_count or ""), memory if has_told else "",
            f"{device.free_disk_bytes / 1e9:.0f}" if has_told else "", device.version,
        ))  # fmt: skip
    show_table(COLUMNS, rows)


def show_observers(listed: Sequence[mesh_pb2.Observer], now: float) -> None:
    """Print who may read metrics as a table. Args: now: seconds since 1970."""
    rows = []
    for observer in listed:
        ends = f"{datetime.fromtimestamp(observer.certificate_ends, timezone.utc):%Y-%m-%d}"
        has_ended = observer.certificate_ends <= now
        rows.append((observer.name, Trouble(f"ended on {ends}") if has_ended else f"reads metrics until {ends}"))
    show_table(OBSERVER_COLUMNS, rows)


def _state(silent_seconds: float) -> str:
    from coordinator.membership.reach import SILENT_AFTER_SECONDS

    if silent_seconds < 0:
        return Trouble("not heard yet")
    return "alive" if silent_seconds <= SILENT_AFTER_SECONDS else Trouble(f"silent for {_duration(silent_seconds)}")


def _duration(seconds: float) -> str:
    from common.wording import counted

    for unit_seconds, name in UNITS:
        if seconds >= 2 * unit_seconds:
            return counted(int(seconds // unit_seconds), name)
    return f"{seconds:.0f} s"
