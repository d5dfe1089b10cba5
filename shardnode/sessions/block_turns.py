"""What comes of one block of one session, computed in its turn among others, and what is told of its times?

Covers: rows of refused sequences, which are not computed; the node's counts. Does not cover: the block itself
(work/executor.py), messages (session.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from common.errors import InputError
from common.weights.stored_numbers import Floats
from protos.shardmesh.v1 import shard_pb2
from shardnode.sessions.open_sequences import TakenSegments
from shardnode.work.executor import BlockOutput
from shardnode.work.layers import LayersOutput
from shardnode.work.slice_at_work import ShardNode

Result = shard_pb2.BlockResult | shard_pb2.LayersResult


class Computed(NamedTuple):
    """A block that is done."""

    partial: Floats
    """The sum of all rows of the request, float32 [row_count, hidden_size]; 0 where sequences are refused."""
    output: BlockOutput | None
    """What computing it took; None: there was nothing to compute."""
    queued: int
    """Nanoseconds that other sessions' blocks took before."""


def computed_in_turn(
    node: ShardNode, kind: str, layer: int, taken: TakenSegments, rows: Floats, activations: str
) -> Computed:  # fmt: skip
    """Compute a block.

    Args: rows: the request's; activations: the session's. Raises: InputError: no such layer; as Executor.run.
    """
    if not 0 <= layer < node.manifest.spec.layer_count:
        raise InputError(f"no {kind} block in layer {layer}")
    if not taken.segments:
        return Computed(np.zeros_like(rows), None, 0)
    queued = node.wait_for_turn()
    try:
        node.executor.activations = activations
        output = node.executor.run(kind, layer, taken.segments, taken.own(rows))
        node.count(kind, output.compute_nanoseconds, output.tile_wait_nanoseconds)
    finally:
        node.lock.release()
    return Computed(taken.among_all(output.partial), output, queued)


def tell_times(result: Result, output: BlockOutput | LayersOutput, queued: int) -> None:
    """Write into an answer what it took."""
    result.compute_nanoseconds = output.compute_nanoseconds
    result.tile_wait_nanoseconds = output.tile_wait_nanoseconds
    if queued:
        result.queue_nanoseconds = queued
