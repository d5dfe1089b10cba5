"""A round's tensors on their way: the input to each rank, a partial sum back from each.

Covers: in memory that both sides see, in messages, in half the bytes (bfloat16) where the user chose so.
Does not cover: sending (ranks.py), the memory (round_memory.py), adding up (reduction.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence

from common.errors import ShapeError
from common.weights.stored_numbers import Floats, narrowed, widened
from common.wire.tensor_codec import decode_tensor, decode_tensors, encode_in_memory, encode_tensor
from coordinator.ranks.round_memory import RoundMemory
from protos.shardmesh.v1 import shard_pb2, tensor_pb2


def messages_of(
    request: shard_pb2.RoundsRequest, into: tensor_pb2.Tensor, rows: Floats, ranks: Sequence[int],
    memory: RoundMemory, wire: str,
) -> Iterator[tuple[Sequence[int], bytes]]:  # fmt: skip
    """Yield ranks and the message for them, each to be sent before the next is made: ranks that see memory first."""
    place = memory.input_place(rows.shape)
    in_memory = memory.ranks() if place is not None else ()
    if place is not None:
        encode_in_memory(rows, into, place)
        yield [rank for rank in ranks if rank in in_memory], request.SerializeToString()
        into.Clear()
    others = [rank for rank in ranks if rank not in in_memory]
    if others:
        encode_tensor(narrowed(rows, wire), into)
        yield others, request.SerializeToString()


def partials_of(
    ranks: Sequence[int], results: Sequence[shard_pb2.BlockResult], shape: tuple[int, ...], in_memory: Collection[int],
    memory: RoundMemory, wire: str, refuse: Callable[[int, ShapeError], Exception],
) -> tuple[Floats, ...]:  # fmt: skip
    """Return each rank's partial sum, float32.

    Args: in_memory: ranks whose sums may lie in memory; refuse: what to raise when a rank's answer is no such tensor.
    """
    if not in_memory:
        with contextlib.suppress(ShapeError):  # once more below, with the name of whose it is
            partials = decode_tensors([result.partial for result in results], shape=shape, dtype=wire)
            return tuple([widened(partial) for partial in partials])
    found = []
    for rank, result in zip(ranks, results, strict=True):
        place = memory.answer_place(rank, shape) if rank in in_memory else None
        dtype = "float32" if result.partial.is_in_memory else wire
        try:
            found.append(widened(decode_tensor(result.partial, shape=shape, dtype=dtype, in_memory=place)))
        except ShapeError as error:
            raise refuse(rank, error) from error
    return tuple(found)
