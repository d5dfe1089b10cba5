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
from common.residual import Residual
from common.residual_message import decode_residual
from common.weights.slice_format import BLOCK_KINDS
from protos.shardmesh.v1 import shard_pb2
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
    return decode_residual(request, node.manifest.spec)


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
