"""Is what a coordinator takes this node for what it holds? Told at the start of a session, with all that differs."""

from __future__ import annotations

from common.errors import SliceMismatch
from common.weights.manifest import SliceManifest
from common.wire.rpc import PROTOCOL_VERSION
from protos.shardmesh.v1 import shard_pb2


def check_same(request: shard_pb2.OpenSession, manifest: SliceManifest) -> None:
    """Raises: SliceMismatch: it is not."""
    pairs = [
        ("protocol version", request.protocol_version, PROTOCOL_VERSION),
        ("model", request.model_identity, manifest.model_identity),
        ("plan", request.plan_digest, manifest.plan.digest),
        ("rank", request.rank, manifest.rank),
        ("weights dtype", request.weights_dtype, manifest.dtype),
    ]
    differences = [
        f"{name} {_short(mine)} instead of {_short(theirs)}" for name, theirs, mine in pairs if theirs != mine
    ]
    if differences:
        remedy = "give it the slice that belongs to the plan"
        if request.protocol_version != PROTOCOL_VERSION:
            remedy = "install the same version of shardmesh on both"
        raise SliceMismatch(f"this node's slice has {', '.join(differences)}; {remedy}")


def _short(value: object) -> str:
    return str(value)[:12]
