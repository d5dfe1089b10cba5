"""The devices that a plan is for: from a file that a person wrote, or from a mesh that runs.

    [coordinator]                        a table for the coordinator, one for each node; every key may be left out
    memory-bytes-per-second = "10GB"
    [nodes.kitchen]
    memory-bytes = "4GB"
    link-bits-per-second = "100M"

Covers: reading both, defaults of a small PC on a home network. Does not cover: what follows (prediction.py).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.compute.device_speeds import DeviceSpeeds
from common.errors import InputError
from common.machine.free_memory import free_memory_bytes
from common.program.sizes import parse_size
from common.trust.certificates import check_name
from coordinator.planning.prediction import PROGRAM_BYTES, Devices, PlannedDevice
from coordinator.ranks.transports.echo import Link
from protos.shardmesh.v1 import mesh_pb2

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COORDINATOR = "coordinator"
SMALL_PC = DeviceSpeeds(memory_bytes_per_second=8e9, disk_bytes_per_second=400e6, arithmetic_per_second=50e9)
"""With four cores and an SSD; a Raspberry Pi 4 reads memory at about half of that."""
DEFAULTS: Mapping[str, float] = {
    "memory-bytes": 8e9,
    "disk-bytes": 100e9,
    "memory-bytes-per-second": SMALL_PC.memory_bytes_per_second,
    "disk-bytes-per-second": SMALL_PC.disk_bytes_per_second,
    "operations-per-second": SMALL_PC.arithmetic_per_second,
    "round-trip-milliseconds": 0.7,
    "link-bits-per-second": 1e9,
    "program-bytes": PROGRAM_BYTES,
}
"""Of a small PC on a cable."""
BUDGET = "memory-budget-bytes"


def read_devices(path: Path) -> Devices:
    """Return what a file says. Raises: InputError: it cannot be read, or says what is no device."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    nodes = document.pop("nodes", {})
    own = document.pop(COORDINATOR, {})
    if document or not isinstance(nodes, dict) or not nodes:
        raise InputError(f"{path} needs a table [nodes.NAME] for each node, beside [{COORDINATOR}], and nothing else")
    for name in nodes:
        check_name(name)
    return Devices(
        own=_device(path, COORDINATOR, own), nodes=tuple(_device(path, name, value) for name, value in nodes.items())
    )


def devices_of(
    nodes: Sequence[mesh_pb2.Node], speeds: Mapping[str, DeviceSpeeds], links: Mapping[str, Link], own: DeviceSpeeds,
    empty_round_seconds: dict[int, float],
) -> Devices:  # fmt: skip
    """Return a running mesh's devices. Args: speeds: rates of nodes, above 0; own: of the coordinator's device."""
    here = PlannedDevice(
        name=COORDINATOR, memory_bytes=free_memory_bytes(), has_budget=False, disk_bytes=1 << 60,
        memory_rate=own.memory_bytes_per_second, disk_rate=own.disk_bytes_per_second,
        arithmetic_rate=own.arithmetic_per_second, link_rate=float(1 << 60),
    )  # fmt: skip
    members = tuple(_member(node, speeds[node.name], links[node.name]) for node in nodes)
    return Devices(own=here, nodes=members, empty_round_seconds=empty_round_seconds)


def _member(node: mesh_pb2.Node, speeds: DeviceSpeeds, link: Link) -> PlannedDevice:
    device = node.device
    return PlannedDevice(
        name=node.name, memory_bytes=device.budget_bytes or device.free_memory_bytes,
        has_budget=bool(device.budget_bytes), disk_bytes=device.free_disk_bytes,
        memory_rate=speeds.memory_bytes_per_second, disk_rate=speeds.disk_bytes_per_second,
        arithmetic_rate=speeds.arithmetic_per_second, program_bytes=device.program_bytes or PROGRAM_BYTES,
        round_trip_seconds=link.round_trip_seconds, link_rate=link.bytes_per_second,
    )  # fmt: skip


def _device(path: Path, name: str, table: Any) -> PlannedDevice:
    if not isinstance(table, dict):
        raise InputError(f"{path}: '{name}' is no table")
    for key in table:
        if key not in DEFAULTS and key != BUDGET:
            raise InputError(f"{path}: {name} has '{key}'; there are: {', '.join((*DEFAULTS, BUDGET))}")
    values = {key: _number(path, name, key, table.get(key, default)) for key, default in DEFAULTS.items()}
    has_budget = BUDGET in table
    memory = _number(path, name, BUDGET, table[BUDGET]) if has_budget else values["memory-bytes"]
    return PlannedDevice(
        name=name, memory_bytes=int(memory), has_budget=has_budget, disk_bytes=int(values["disk-bytes"]),
        memory_rate=values["memory-bytes-per-second"], disk_rate=values["disk-bytes-per-second"],
        arithmetic_rate=values["operations-per-second"], program_bytes=int(values["program-bytes"]),
        round_trip_seconds=values["round-trip-milliseconds"] / 1000, link_rate=values["link-bits-per-second"] / 8,
    )  # fmt: skip


def _number(path: Path, name: str, key: str, value: Any) -> float:
    if isinstance(value, str):
        return float(parse_size(value, f"{path}: {name}: {key}"))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e18:
        raise InputError(f"{path}: {name}: '{key}' is {value!r}; write a number above 0, or a size such as \"4GB\"")
    return float(value)
