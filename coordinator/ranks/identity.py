"""What must every node of a run agree that it holds?"""

from __future__ import annotations

from dataclasses import dataclass

from common.model.model_spec import ModelSpec
from common.model.plan import Plan
from common.weights.slice_format import ATTENTION, FFN
from common.wire.rpc import PROTOCOL_VERSION
from protos.shardmesh.v1 import shard_pb2


@dataclass(frozen=True, kw_only=True)
class RanksIdentity:
    """A model, cut by a plan."""

    model_identity: str
    spec: ModelSpec
    plan: Plan
    dtype: str

    def taking_part(self) -> dict[str, tuple[int, ...]]:
        """Return, by kind of block, the ranks that hold some of it."""
        shares = self.plan.shares
        return {
            ATTENTION: tuple(rank for rank, share in enumerate(shares) if share.query_head_count),
            FFN: tuple(rank for rank, share in enumerate(shares) if share.ffn_column_count),
        }

    def describe(self, rank: int, opening: shard_pb2.OpenSession) -> None:
        """Write down what the node of a rank is taken for."""
        opening.protocol_version = PROTOCOL_VERSION
        opening.model_identity = self.model_identity
        opening.plan_digest = self.plan.digest
        opening.rank = rank
        opening.weights_dtype = self.dtype
