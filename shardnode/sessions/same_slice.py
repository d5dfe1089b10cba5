"""Is what a coordinator takes this node for what it holds, and can it compute so? Told at the start of a session."""

from __future__ import annotations

from common.compute.backend import FLOAT32, INT8, check_activations
from common.errors import InputError, SliceMismatch
from common.weights.manifest import SliceManifest
from common.wire.rpc import PROTOCOL_VERSION
from protos.shardmesh.v1 import shard_pb2
from shardnode.config import NodeConfig

NAMES: dict[int, str] = {
    shard_pb2.ACTIVATIONS_UNSPECIFIED: FLOAT32, shard_pb2.ACTIVATIONS_FLOAT32: FLOAT32,
    shard_pb2.ACTIVATIONS_INT8: INT8,
}  # fmt: skip


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


def activations_of(number: int, config: NodeConfig) -> str:
    """Return what the rows of a session are to be. Raises: InputError: this node does not compute so."""
    name = NAMES.get(number)
    if name is None:
        raise InputError(
            f"this node knows no activations of number {number}; install the same version of shardmesh on both"
        )
    check_activations(name, config.backend, use_gpu=config.use_gpu)
    return name


def _short(value: object) -> str:
    return str(value)[:12]
