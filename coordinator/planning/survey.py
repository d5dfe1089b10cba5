"""A look at the whole mesh before a plan: what each device is now, and how far away.

Covers: devices measured, all nodes at once as they work, then links, then rounds of a model's sizes. Does not cover:
plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

from common.compute.device_speeds import DeviceSpeeds, kept_speeds, measure_apart
from common.errors import ResourceError
from coordinator.membership.reach import MeshAccess
from coordinator.planning.devices import SMALL_PC, devices_of
from coordinator.planning.links import LARGE_BYTES, MeshEchoes, measure_device
from coordinator.planning.prediction import Devices, Workload
from coordinator.ranks.transports.carriers import AUTO
from coordinator.ranks.transports.echo import Link
from protos.shardmesh.v1 import mesh_pb2


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found."""

    speeds: dict[str, DeviceSpeeds]
    """Of each node, by name."""
    devices: Devices
    links: dict[str, Link]


def survey(
    mesh: MeshAccess, nodes: Sequence[mesh_pb2.Node], state_directory: Path, hidden_size: int, workload: Workload,
    told: Callable[[str], None], *, measure_devices: bool = True, rounds: str = AUTO,
) -> Survey:  # fmt: skip
    """Measure.

    Args: told: called with what is being done, for people; measure_devices: False: links only, the rest as it was;
        rounds: what is to carry rounds, of ROUNDS.
    Raises: NodeError: a node is not reached.
    """
    names = [node.name for node in nodes]
    kept = kept_speeds(state_directory) or DeviceSpeeds()
    if measure_devices:
        told(f"measuring memory, processor and disk of {', '.join(names)}, then of this device (some seconds)")
        pool = ThreadPoolExecutor(len(names))
        try:
            found = list(pool.map(lambda node: _speeds_of_node(mesh, node, told), nodes))
        finally:  # after Ctrl-C, or for a node that is gone, nobody waits until the others are done
            pool.shutdown(wait=False)
        own = _speeds(lambda: measure_apart(state_directory), kept, told)
    else:
        found = [_or_small_pc(DeviceSpeeds.told_by(node.device)) for node in nodes]
        own = _or_small_pc(kept)
    told(f"measuring the links to {', '.join(names)}")
    with MeshEchoes(mesh, names, told, rounds) as echoes:
        links = echoes.links()
        took = {size: echoes.round_seconds(size) for size in (hidden_size * workload.wire_bytes, LARGE_BYTES)}
    speeds = dict(zip(names, found, strict=True))
    return Survey(speeds=speeds, devices=devices_of(nodes, speeds, links, own, took), links=links)


def _speeds_of_node(mesh: MeshAccess, node: mesh_pb2.Node, told: Callable[[str], None]) -> DeviceSpeeds:
    return _speeds(lambda: measure_device(mesh, node.name), DeviceSpeeds.told_by(node.device), told)


def _speeds(measure: Callable[[], DeviceSpeeds], before: DeviceSpeeds, told: Callable[[str], None]) -> DeviceSpeeds:
    """Return the rates of now; where they cannot be measured, those of before, or at worst a small PC's; and say so."""
    try:
        now = measure()
    except ResourceError as error:
        told(f"{error}; counted is what was measured before, or a small PC")
        now = before
    return _or_small_pc(now, before)


def _or_small_pc(*known: DeviceSpeeds) -> DeviceSpeeds:
    """Return the first rate of each kind that is known."""
    return DeviceSpeeds(**{
        part.name: next(rate for speeds in (*known, SMALL_PC) if (rate := getattr(speeds, part.name)))
        for part in fields(DeviceSpeeds)
    })  # fmt: skip
