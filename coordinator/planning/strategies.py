"""Which plan suits these devices: from a split strategy and what each has to who holds how much.

Covers: `uniform`, `ratio:...`, `memory`, `measured`. Does not cover: dealing heads and columns out
(common/model/plan.py), times and bytes (prediction.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common.errors import InputError
from common.model.plan import Plan
from common.weights.balanced_plans import balanced_plan
from common.weights.slice_description import SliceDescription
from coordinator.planning.prediction import Devices, PlannedDevice, Prediction, Workload, predict

UNIFORM, MEMORY, MEASURED = "uniform", "memory", "measured"
STEPS = 24
"""Of balancing; plans change no more after a few."""
LEAST_MEMORY_BYTES = 1 << 20


def plan_by_memory(description: SliceDescription, devices: Sequence[PlannedDevice]) -> Plan:
    """Return a plan in which each node holds in proportion to the weights that its memory can hold."""
    room = [max(LEAST_MEMORY_BYTES, device.memory_bytes - device.program_bytes) for device in devices]
    return _in_ratio(description, [float(byte_count) for byte_count in room], MEMORY)


def plan_by_speed(description: SliceDescription, devices: Devices, workload: Workload) -> Plan:
    """Return the plan with the least predicted time a token that balancing finds.

    Each step gives less to who takes longer than the others; the best plan on the way is kept, so it is never worse
    than uniform and `memory`.
    """
    nodes = devices.nodes

    def judged(plan: Plan) -> tuple[tuple[bool, float], Prediction]:
        predicted = predict(replace(description, plan=plan), devices, workload)
        return (not all(part.fits for part in predicted.devices), predicted.seconds_per_token), predicted

    candidates = [balanced_plan(description, UNIFORM, len(nodes)), plan_by_memory(description, nodes)]
    best_cost, best = min(((judged(plan)[0], plan) for plan in candidates), key=lambda costed: costed[0])
    ratios = [node.memory_rate for node in nodes]
    for _ in range(STEPS):
        plan = _in_ratio(description, ratios, MEASURED)
        cost, predicted = judged(plan)
        if cost < best_cost:
            best_cost, best = cost, plan
        busy = [max(part.compute_seconds, part.disk_seconds, 1e-9) for part in predicted.devices]
        middle = sum(busy) / len(busy)
        ratios = [max(1e-6, ratio * (middle / seconds) ** 0.5) for ratio, seconds in zip(ratios, busy, strict=True)]
        ratios = [ratio / sum(ratios) for ratio in ratios]
    return replace(best, strategy=MEASURED)


def plan_for(description: SliceDescription, strategy: str, devices: Devices, workload: Workload) -> Plan:
    """Return who holds what, a rank for each node.

    Args: description: of the model; its plan does not matter.
    Raises: InputError: the strategy is unknown, or does not fit the devices.
    """
    nodes = devices.nodes
    if not nodes:
        raise InputError("a plan needs a node; --nodes names none")
    if strategy == MEMORY:
        return plan_by_memory(description, nodes)
    if strategy == MEASURED:
        return plan_by_speed(description, devices, workload)
    try:
        return balanced_plan(description, strategy, len(nodes))
    except InputError as error:
        if "unknown --split-strategy" in str(error):
            raise InputError(f"unknown --split-strategy '{strategy}'; use uniform, ratio:3,1,1, memory or measured"
                             ) from None  # fmt: skip
        raise


def _in_ratio(description: SliceDescription, ratios: Sequence[float], name: str) -> Plan:
    plan = balanced_plan(description, "ratio:" + ",".join(f"{ratio:.9g}" for ratio in ratios), len(ratios))
    return replace(plan, strategy=name)
