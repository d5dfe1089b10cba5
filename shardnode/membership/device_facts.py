"""What this device has: what a node says of it when it joins, and with every heartbeat."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import psutil

from common.compute.device_speeds import DeviceSpeeds
from common.machine.free_memory import free_memory_bytes
from common.machine.operating_system import usable_core_count
from common.program.version import program_version
from common.wire.rpc import PROTOCOL_VERSION
from protos.shardmesh.v1 import mesh_pb2


def device_facts(
    data_directory: Path, speeds: DeviceSpeeds, *, program_bytes: int = 0, budget_bytes: int = 0
) -> mesh_pb2.Device:
    """Return what this device has now.

    Args: data_directory: the disk that counts is the one it lies on; program_bytes, budget_bytes: as in mesh.proto.
    """
    return mesh_pb2.Device(
        version=program_version(), protocol_version=PROTOCOL_VERSION, core_count=usable_core_count(),
        memory_bytes=psutil.virtual_memory().total, free_memory_bytes=free_memory_bytes(),
        free_disk_bytes=shutil.disk_usage(data_directory).free, program_bytes=program_bytes, budget_bytes=budget_bytes,
        **asdict(speeds),
    )  # fmt: skip
