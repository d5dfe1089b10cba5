"""Whole layers on the only node of a plan: there is nobody to add up with, so no block has to go to the coordinator.

Covers: norms received once, checked; the residual stream from block to block; stopping in time.
Does not cover: blocks (executor.py), messages (session.py), the same steps between rounds (coordinator/engine.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from common.errors import InputError, ProtocolError
from common.model_spec import ModelSpec
from common.residual import LayerVectors, Residual
from common.tensor_codec import decode_tensor
from common.weights.slice_format import ATTENTION, BLOCK_KINDS, FFN
from protos.shardmesh.v1 import shard_pb2, tensor_pb2
from shardnode.few_rows import Segment
from shardnode.node import ShardNode

RUN_SECONDS = 1.0
"""After so long a run ends with the layer it is in: the coordinator bounds each answer, however slow the disk is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayersOutput:
    """The residual stream after some layers, float32 [row_count, hidden_size], and where their time went."""

    hidden: torch.Tensor
    layer_count: int
    compute_nanoseconds: int
    tile_wait_nanoseconds: int


def residual_from(request: shard_pb2.LoadNorms, node: ShardNode) -> Residual:
    """Return what lies between blocks. Raises: ProtocolError: this node has only a part of each; ShapeError."""
    world_size = node.manifest.plan.world_size
    if world_size != 1:
        raise ProtocolError(f"norms for one of {world_size} ranks, whose parts have to be added up elsewhere")
    spec = node.manifest.spec

    def vectors(norms: tensor_pb2.Tensor, biases: tensor_pb2.Tensor | None) -> LayerVectors:
        return LayerVectors(norms=_rows(norms, spec), late_biases=None if biases is None else _rows(biases, spec))

    return Residual(
        blocks={
            ATTENTION: vectors(
                request.attention_norms, request.output_biases if request.HasField("output_biases") else None
            ),
            FFN: vectors(request.ffn_norms, request.down_biases if request.HasField("down_biases") else None),
        },
        norm_epsilon=spec.norm_epsilon,
    )


@torch.inference_mode()
def run_layers(
    node: ShardNode, residual: Residual, layers: range, segments: Sequence[Segment], rows: torch.Tensor
) -> LayersOutput:
    """Run `layers`, or the first of them, on the residual stream `rows`, float32 [row_count, hidden_size].

    Raises: InputError: there are no such layers; what Executor.run raises.
    """
    if not layers or layers.start < 0 or layers.stop > node.manifest.spec.layer_count:
        raise InputError(f"no layers from {layers.start} up to {layers.stop}")
    deadline = time.monotonic() + RUN_SECONDS
    computed = waited = 0
    hidden = rows.clone()
    output: torch.Tensor | None = None
    layer = layers.start
    for layer in layers:
        for kind in BLOCK_KINDS:
            normed = residual.block_input(kind, layer, hidden, output)
            with node.lock:
                block = node.executor.run(kind, layer, segments, normed)
                node.count(kind, block)
            output = block.partial
            residual.add_late_bias(kind, layer, output)
            computed += block.compute_nanoseconds
            waited += block.tile_wait_nanoseconds
        if time.monotonic() > deadline:
            break
    assert output is not None
    hidden += output
    return LayersOutput(
        hidden=hidden, layer_count=layer + 1 - layers.start, compute_nanoseconds=computed, tile_wait_nanoseconds=waited
    )


def _rows(message: tensor_pb2.Tensor, spec: ModelSpec) -> list[torch.Tensor]:
    """Return one vector for each layer, in memory of its own. Raises: ShapeError."""
    return list(decode_tensor(message, shape=(spec.layer_count, spec.hidden_size)).clone())
