"""Which plan suits a mesh's nodes: from what they say of themselves to who holds how much.

Covers: strategies over named nodes. Does not cover: dealing heads and columns out (common/plan.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import InputError
from common.model_spec import ModelSpec
from common.plan import Plan, make_plan
from protos.shardmesh.v1 import mesh_pb2


def plan_for(spec: ModelSpec, strategy: str, nodes: Sequence[mesh_pb2.Node]) -> Plan:
    """Return who holds what, a rank for each of `nodes`. Raises: InputError: the strategy, or no nodes."""
    if not nodes:
        raise InputError("--nodes names no node")
    return make_plan(spec, strategy, len(nodes))
