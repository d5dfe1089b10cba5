"""A look at the whole mesh before a plan: what each device is, and how far away.

Covers: links measured, rounds of a model's sizes measured, the coordinator's own rates. Does not cover: plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.device_speeds import device_speeds
from coordinator.links import LARGE_BYTES, Link, measure_links, measure_round
from coordinator.mesh_access import MeshAccess
from coordinator.planned_devices import devices_of
from coordinator.prediction import Devices, Workload
from protos.shardmesh.v1 import mesh_pb2


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found."""

    devices: Devices
    links: dict[str, Link]


def survey(
    mesh: MeshAccess, nodes: Sequence[mesh_pb2.Node], state_directory: Path, hidden_size: int, workload: Workload,
    told: Callable[[str], None],
) -> Survey:  # fmt: skip
    """Measure. Args: told: called with what is being done, for people. Raises: NodeError: a node is not reached."""
    names = [node.name for node in nodes]
    own = device_speeds(state_directory, told)
    told(f"measuring the links to {', '.join(names)}")
    links = measure_links(mesh, names)
    rounds = {size: measure_round(mesh, names, size) for size in (hidden_size * workload.wire_bytes, LARGE_BYTES)}
    return Survey(devices=devices_of(nodes, links, own, rounds), links=links)
