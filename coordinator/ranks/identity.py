"""What must every node of a run agree that it holds?"""

from __future__ import annotations

import re
from dataclasses import dataclass

from common.model.model_spec import ModelSpec
from common.model.plan import Plan
from common.wire.rpc import PROTOCOL_VERSION
from protos.shardmesh.v1 import shard_pb2

_NUMBERED = re.compile(r"node \d+( \(.*\))?")
"""What a node is called that people gave no name: its rank, and where it is (transports/connecting.py)."""


def label_of(rank: int, name: str) -> str:
    """Return what series and reports call a node: the name that people gave it, or node0 and on."""
    return f"node{rank}" if _NUMBERED.fullmatch(name) else name


@dataclass(frozen=True, kw_only=True)
class RanksIdentity:
    """A model, cut by a plan."""

    model_identity: str
    spec: ModelSpec
    plan: Plan
    dtype: str

    def describe(self, rank: int, opening: shard_pb2.OpenSession) -> None:
        """Write down what the node of a rank is taken for."""
        opening.protocol_version = PROTOCOL_VERSION
        opening.model_identity = self.model_identity
        opening.plan_digest = self.plan.digest
        opening.rank = rank
        opening.weights_dtype = self.dtype
