"""What lies between blocks, as a message: the coordinator writes it, the only node of a plan reads it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.compute.residual import LayerVectors, Residual
from common.model.model_spec import ModelSpec
from common.weights.slice_format import ATTENTION, FFN
from common.weights.stored_numbers import Floats, widened
from common.wire.tensor_codec import decode_tensor, encode_tensor
from protos.shardmesh.v1 import shard_pb2, tensor_pb2


def encode_residual(residual: Residual, into: shard_pb2.LoadNorms) -> None:
    """Write norms and late biases of all layers into the message `into`."""
    attention, ffn = residual.blocks[ATTENTION], residual.blocks[FFN]
    _encode(attention.norms, into.attention_norms)
    _encode(ffn.norms, into.ffn_norms)
    if attention.late_biases is not None:
        _encode(attention.late_biases, into.output_biases)
    if ffn.late_biases is not None:
        _encode(ffn.late_biases, into.down_biases)


def decode_residual(message: shard_pb2.LoadNorms, spec: ModelSpec) -> Residual:
    """Return what the message says, in memory of its own. Raises: ShapeError: a tensor is not of the model's shape."""
    attention_biases = _decode(message.output_biases, spec) if message.HasField("output_biases") else None
    ffn_biases = _decode(message.down_biases, spec) if message.HasField("down_biases") else None
    return Residual(
        blocks={
            ATTENTION: LayerVectors(norms=_decode(message.attention_norms, spec), late_biases=attention_biases),
            FFN: LayerVectors(norms=_decode(message.ffn_norms, spec), late_biases=ffn_biases),
        },
        norm_epsilon=spec.norm_epsilon,
    )


def _encode(vectors: Sequence[Floats], into: tensor_pb2.Tensor) -> None:
    encode_tensor(np.stack(tuple(vectors)), into)


def _decode(message: tensor_pb2.Tensor, spec: ModelSpec) -> list[Floats]:
    """Return one vector for each layer."""
    return list(widened(decode_tensor(message, shape=(spec.layer_count, spec.hidden_size))).copy())
