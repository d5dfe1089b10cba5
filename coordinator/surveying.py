"""A look at the whole mesh before a plan: what each device is now, and how far away.

Covers: devices measured, all nodes at once as they work, then links, then rounds of a model's sizes. Does not cover:
plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common.device_speeds import measure_apart
from common.errors import ResourceError
from coordinator.links import LARGE_BYTES, Link, measure_device, measure_links, measure_round
from coordinator.mesh_access import MeshAccess
from coordinator.planned_devices import devices_of
from coordinator.prediction import Devices, Workload
from protos.shardmesh.v1 import mesh_pb2


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found."""

    nodes: Sequence[mesh_pb2.Node]
    """With the rates of now."""
    devices: Devices
    links: dict[str, Link]


def survey(
    mesh: MeshAccess, nodes: Sequence[mesh_pb2.Node], state_directory: Path, hidden_size: int, workload: Workload,
    told: Callable[[str], None],
) -> Survey:  # fmt: skip
    """Measure. Args: told: called with what is being done, for people. Raises: NodeError: a node is not reached."""
    names = [node.name for node in nodes]
    told(f"measuring memory, processor and disk of {', '.join(names)}, then of this device (some seconds)")
    with ThreadPoolExecutor(len(names)) as pool:
        nodes = list(pool.map(lambda node: _measured(mesh, node, told), nodes))
    own = measure_apart(state_directory)
    told(f"measuring the links to {', '.join(names)}")
    links = measure_links(mesh, names)
    rounds = {size: measure_round(mesh, names, size) for size in (hidden_size * workload.wire_bytes, LARGE_BYTES)}
    return Survey(nodes=nodes, devices=devices_of(nodes, links, own, rounds), links=links)


def _measured(mesh: MeshAccess, node: mesh_pb2.Node, told: Callable[[str], None]) -> mesh_pb2.Node:
    """Return a node with the rates of now; with those of before, and a word about it, where that cannot be."""
    now = mesh_pb2.Node()
    now.CopyFrom(node)
    try:
        rates = measure_device(mesh, node.name)
    except ResourceError as error:
        told(f"{error}; its rates are those of before")
        return now
    now.device.memory_bytes_per_second = rates.memory_bytes_per_second
    now.device.disk_bytes_per_second = rates.disk_bytes_per_second
    now.device.arithmetic_per_second = rates.arithmetic_per_second
    return now
