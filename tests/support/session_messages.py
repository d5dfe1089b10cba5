"""The messages of a session with a shard node, good ones; tests spoil them.

Covers: RoundsRequests for a sliced model. Does not cover: sending them (listening_nodes.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.compute.residual import Residual
from common.weights.stored_numbers import Floats
from common.wire.residual_message import encode_residual
from common.wire.rpc import PROTOCOL_VERSION
from common.wire.tensor_codec import encode_tensor
from coordinator.ranks.identity import RanksIdentity
from protos.shardmesh.v1 import shard_pb2

ATTENTION = shard_pb2.BLOCK_KIND_ATTENTION
FFN = shard_pb2.BLOCK_KIND_FFN


def open_session(call_id: int, identity: RanksIdentity, *, rank: int = 0) -> shard_pb2.RoundsRequest:
    """Return the first message of a session with the node of `rank`."""
    request = shard_pb2.RoundsRequest(call_id=call_id)
    request.open_session.protocol_version = PROTOCOL_VERSION
    request.open_session.model_identity = identity.model_identity
    request.open_session.plan_digest = identity.plan.digest
    request.open_session.rank = rank
    request.open_session.weights_dtype = identity.dtype
    return request


def open_sequence(call_id: int, *, sequence_id: int = 1, position_capacity: int = 8) -> shard_pb2.RoundsRequest:
    """Return the message that reserves a sequence."""
    request = shard_pb2.RoundsRequest(call_id=call_id)
    request.change_sequences.opened.add(sequence_id=sequence_id, position_capacity=position_capacity)
    return request


def close_sequence(call_id: int, *, sequence_id: int = 1) -> shard_pb2.RoundsRequest:
    """Return the message that gives a sequence's room back."""
    request = shard_pb2.RoundsRequest(call_id=call_id)
    request.change_sequences.closed.append(sequence_id)
    return request


def run_block(
    call_id: int,
    rows: Floats,
    *,
    kind: shard_pb2.BlockKind = ATTENTION,
    layer: int = 0,
    sweep_id: int = 0,
    segments: Sequence[tuple[int, int, int]] | None = None,
) -> shard_pb2.RoundsRequest:
    """Return one round.

    Args: segments: (sequence id, first position, row count); all rows of sequence 1 from position 0 by default.
    """
    request = shard_pb2.RoundsRequest(call_id=call_id)
    block = request.run_block
    block.kind = kind
    block.layer = layer
    block.sweep_id = sweep_id
    for sequence_id, first_position, row_count in segments or [(1, 0, rows.shape[0])]:
        block.segments.add(
            sequence_id=sequence_id, first_position=first_position, row_count=row_count,
            rotary_length=first_position + row_count,
        )  # fmt: skip
    encode_tensor(rows, block.input)
    return request


def load_norms(call_id: int, residual: Residual) -> shard_pb2.RoundsRequest:
    """Return the message that gives the only node what lies between blocks."""
    request = shard_pb2.RoundsRequest(call_id=call_id)
    encode_residual(residual, request.load_norms)
    return request


def run_layers(
    call_id: int, rows: Floats, *, first_layer: int = 0, layer_count: int = 2, first_position: int = 0
) -> shard_pb2.RoundsRequest:
    """Return the message that runs layers on rows of sequence 1, at neighbouring positions."""
    request = shard_pb2.RoundsRequest(call_id=call_id)
    layers = request.run_layers
    layers.first_layer, layers.layer_count = first_layer, layer_count
    row_count = rows.shape[0]
    layers.segments.add(
        sequence_id=1, first_position=first_position, row_count=row_count, rotary_length=first_position + row_count
    )
    encode_tensor(rows, layers.input)
    return request


def random_rows(row_count: int, hidden_size: int, seed: int = 0) -> Floats:
    """Return rows as a norm would give them, float32 [row_count, hidden_size]."""
    return np.random.default_rng(seed).standard_normal((row_count, hidden_size), dtype=np.float32)
