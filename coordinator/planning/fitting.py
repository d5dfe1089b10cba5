"""What does a plan lack on devices that it does not fit, and what would fit? Arithmetic only.

Covers: larger budgets, room on disks, smaller weights, another strategy, more nodes; each is tried before it is said.
Does not cover: what fits (prediction.py), plans (strategies.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from common.errors import InputError, ResourceError
from common.weights.encoded_format import DEFAULT_CELL_BYTES
from common.weights.quantizing import QUANTIZED_DTYPES, quantized_encodings
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import ITEM_BYTES
from coordinator.planning.prediction import Devices, PlannedDevice, Workload, predict
from coordinator.planning.strategies import MEASURED, MEMORY, UNIFORM, plan_for

MOST_MORE_NODES = 8
GRAIN_BYTES = 10_000_000
"""Of budgets that are said."""
ENDLESS_BYTES = 1 << 60


def check_fits(description: SliceDescription, strategy: str, devices: Devices, workload: Workload) -> None:
    """Refuse a plan that does not fit. Args: description: with the plan; strategy: that it follows from.

    Raises: ResourceError: who lacks how much of what, and what would fit.
    """
    lacking = [
        text
        for index, part in enumerate(predict(description, devices, workload).devices) if not part.fits
        for text in _lacks(description, devices, workload, index)
    ]  # fmt: skip
    if not lacking:
        return
    ways = list(_ways(description, strategy, devices, workload))
    others = f", or try what would fit as well: {', or '.join(ways)}" if ways else ""
    raise ResourceError(f"this plan does not fit: {'; '.join(lacking)}. Give them that{others}")


def _lacks(description: SliceDescription, devices: Devices, workload: Workload, index: int) -> Iterator[str]:
    """Yield what one node needs more of."""
    device = devices.nodes[index]
    needed = predict(description, devices, workload).devices[index].slice_bytes
    if needed > device.disk_bytes:
        yield f"{device.name} needs {needed / 1e9:.2f} GB of disk and has {device.disk_bytes / 1e9:.2f} GB"

    def fits_with(memory_bytes: int) -> bool:
        changed = replace(device, memory_bytes=memory_bytes, disk_bytes=ENDLESS_BYTES)
        return predict(description, _with(devices, index, changed), workload).devices[index].fits

    if fits_with(device.memory_bytes):
        return
    low, high = device.memory_bytes // GRAIN_BYTES, (device.memory_bytes + 2 * needed) // GRAIN_BYTES + 100
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits_with(middle * GRAIN_BYTES) else (middle, high)
    yield (f"{device.name} needs --memory-budget {high * GRAIN_BYTES / 1e9:.2f}GB at least and has "
           f"{device.memory_bytes / 1e9:.2f}GB")  # fmt: skip


def _ways(description: SliceDescription, strategy: str, devices: Devices, workload: Workload) -> Iterator[str]:
    """Yield what would fit too, each by itself."""
    for other in (MEASURED, MEMORY):
        if other != strategy and _fits(description, other, devices, workload):
            yield f"--split-strategy {other}"
            break
    for smaller in _smaller(description):
        dtype = smaller.dtype
        if _fits(smaller, strategy, devices, workload):
            yield f"--weights-dtype {dtype}"
            break
    largest = max(devices.nodes, key=lambda node: (node.memory_bytes, node.disk_bytes))
    for count in range(1, MOST_MORE_NODES + 1):
        more = replace(devices, nodes=(*devices.nodes, *[largest] * count))
        if any(_fits(description, way, more, workload) for way in (UNIFORM, MEMORY)):
            yield f"one more node like {largest.name}" if count == 1 else f"{count} more nodes like {largest.name}"
            return


def _smaller(description: SliceDescription) -> Iterator[SliceDescription]:
    """Yield the model in dtypes that take less, the closest to its own first; bfloat16 has every number's range."""
    if description.encodings is not None:
        return
    for dtype in ("bfloat16", "float16"):
        if ITEM_BYTES[dtype] < ITEM_BYTES[description.dtype]:
            yield replace(description, dtype=dtype)
    for dtype in QUANTIZED_DTYPES:
        encodings = quantized_encodings(description.spec, dtype, description.dtype)
        yield replace(description, dtype=dtype, encodings=encodings, tile_bytes=DEFAULT_CELL_BYTES)


def _fits(description: SliceDescription, strategy: str, devices: Devices, workload: Workload) -> bool:
    """Tell whether a strategy has a plan that fits."""
    try:
        planned = replace(description, plan=plan_for(description, strategy, devices, workload))
    except InputError:  # more nodes than the model has heads for, or than a ratio has numbers
        return False
    return all(part.fits for part in predict(planned, devices, workload).devices)


def _with(devices: Devices, index: int, device: PlannedDevice) -> Devices:
    return replace(devices, nodes=(*devices.nodes[:index], device, *devices.nodes[index + 1 :]))
