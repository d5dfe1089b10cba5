"""What rows are in products: asked of every rank when a session is opened, so that all compute alike.

Covers: asking, and how rows travel in the same message; telling a node that does not know of it.
Does not cover: what a node does with it (shardnode/sessions/same_slice.py), products (common/native/integers.c).
"""

from __future__ import annotations

from common.compute.backend import FLOAT32, INT8
from common.errors import SliceMismatch
from common.wire.tensor_codec import wire_number
from protos.shardmesh.v1 import shard_pb2

_NUMBERS = {FLOAT32: shard_pb2.ACTIVATIONS_FLOAT32, INT8: shard_pb2.ACTIVATIONS_INT8}


def ask_for_rows(wire: str, activations: str, request: shard_pb2.OpenSession) -> None:
    """Say how rows travel, and what they are in products: one of common/compute/backend.py's."""
    request.wire_dtype = wire_number(wire)
    request.activations = _NUMBERS[activations]


def check_activations_of(opened: shard_pb2.SessionOpened, name: str, node: str) -> None:
    """Raises: SliceMismatch: a node computes otherwise, since it is older. Args: node: what people call it."""
    if name != FLOAT32 and opened.activations != _NUMBERS[name]:
        raise SliceMismatch(
            f"{node} knows float32 activations only; install this version of shardmesh there, or leave --activations "
            "out"
        )
