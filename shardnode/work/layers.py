"""Whole layers on the only node of a plan: there is nobody to add up with, so no block has to go to the coordinator.

Covers: norms received once, checked; the residual stream from block to block; stopping in time.
Does not cover: blocks (executor.py), several layers in one call (native_layers.py), messages (sessions/session.py), the
same steps between rounds (coordinator/ranks/layer_pass.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from common.compute.residual import Residual
from common.errors import InputError, ProtocolError, SliceMismatch
from common.weights.slice_format import BLOCK_KINDS
from common.weights.stored_numbers import Floats
from common.wire.residual_message import decode_residual
from protos.shardmesh.v1 import shard_pb2
from shardnode.work.kv_cache import Segment
from shardnode.work.native_layers import NativeLayers
from shardnode.work.slice_at_work import ShardNode

RUN_SECONDS = 1.0
"""After so long a run ends with the layer it is in: the coordinator bounds each answer, however slow the disk is."""
LAYERS_AT_FIRST = 8
CALL_SECONDS = 0.25
"""As many layers as take so long go into one native call: worker threads stay awake, and the clock is looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayersOutput:
    """The residual stream after some layers, float32 [row_count, hidden_size], and where their time went."""

    hidden: Floats
    layer_count: int
    compute_nanoseconds: int = 0
    tile_wait_nanoseconds: int = 0
    queue_nanoseconds: int = 0
    """Beside these: while another session's layers were computed."""


@dataclass(kw_only=True, slots=True)
class _Times:
    """Nanoseconds of an answer so far."""

    computed: int = 0
    waited: int = 0
    queued: int = 0


def residual_from(request: shard_pb2.LoadNorms, node: ShardNode) -> Residual:
    """Return what lies between blocks. Raises: ProtocolError: this node has only a part of each; ShapeError."""
    world_size = node.manifest.plan.world_size
    if world_size != 1:
        raise ProtocolError(f"norms for one of {world_size} ranks, whose parts have to be added up elsewhere")
    return decode_residual(request, node.manifest.spec)


class WholeLayers:
    """The layers of one node for one session."""

    def __init__(self, node: ShardNode, residual: Residual, activations: str) -> None:
        self._node = node
        self._residual = residual
        self._activations = activations
        self._native = NativeLayers(node, residual)
        self._layers_at_once = LAYERS_AT_FIRST
        self._uncounted: list[int] = []

    def run(self, layers: range, segments: Sequence[Segment], rows: Floats) -> LayersOutput:
        """Run `layers`, or the first of them, on the residual stream `rows`, float32 [row_count, hidden_size].

        Raises: InputError: there are no such layers; SliceMismatch: the slice was closed; what Executor.run raises.
        """
        if not layers or layers.start < 0 or layers.stop > self._node.manifest.spec.layer_count:
            raise InputError(f"no layers from {layers.start} up to {layers.stop}")
        deadline = time.monotonic() + RUN_SECONDS
        hidden = rows.copy()
        times = _Times()
        layer = layers.start
        while layer < layers.stop:
            done = self._run_some(range(layer, min(layer + self._layers_at_once, layers.stop)), segments, hidden, times)
            layer += done
            if not done:
                self._run_one(layer, segments, hidden, times)
                layer += 1
            if time.monotonic() > deadline:
                break
        return LayersOutput(
            hidden=hidden, layer_count=layer - layers.start, compute_nanoseconds=times.computed,
            tile_wait_nanoseconds=times.waited, queue_nanoseconds=times.queued,
        )  # fmt: skip

    def _run_some(self, layers: range, segments: Sequence[Segment], hidden: Floats, times: _Times) -> int:
        """Run layers in one native call, as many as can be run so; return how many. Raises: as `run`."""
        node = self._node
        times.queued += node.wait_for_turn()
        try:
            if node.is_closed:  # then weights that stay are gone
                raise SliceMismatch("its slice is closed")
            node.executor.activations = self._activations
            done = self._native.run(layers, segments, hidden)
            self._uncounted += done.block_nanoseconds
        finally:
            node.lock.release()
        if done.layer_count:
            nanoseconds = sum(done.block_nanoseconds)
            times.computed += nanoseconds
            self._layers_at_once = max(1, int(CALL_SECONDS * 1e9 * done.layer_count / nanoseconds))
        return done.layer_count

    def settle(self) -> None:
        """Count the blocks since the last time; when an answer is on its way, since nobody waits for that."""
        nanoseconds, self._uncounted = self._uncounted, []
        with self._node.lock:
            for number, one in enumerate(nanoseconds):
                self._node.count(BLOCK_KINDS[number % len(BLOCK_KINDS)], one)

    def _run_one(self, layer: int, segments: Sequence[Segment], hidden: Floats, times: _Times) -> None:
        """Run a layer block by block, in place."""
        output: Floats | None = None
        for kind in BLOCK_KINDS:
            normed = self._residual.block_input(kind, layer, hidden, output)
            times.queued += self._node.wait_for_turn()
            try:
                self._node.executor.activations = self._activations
                block = self._node.executor.run(kind, layer, segments, normed)
                self._node.count(kind, block.compute_nanoseconds, block.tile_wait_nanoseconds)
            finally:
                self._node.lock.release()
            output = block.partial
            self._residual.finish(kind, layer, output)
            times.computed += block.compute_nanoseconds
            times.waited += block.tile_wait_nanoseconds
        if output is not None:
            hidden += output
