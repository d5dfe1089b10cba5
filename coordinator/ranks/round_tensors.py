"""The tensors of a round on their way back: a partial sum from each rank.

Covers: in memory that both sides see, in messages of both kinds, in fewer bytes where the user chose so.
Does not cover: the way there (round_messages.py), the memory (round_memory.py), adding up (reduction.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from common.compute.row_steps import add_parts_of_messages
from common.errors import ShapeError
from common.weights.stored_numbers import Floats
from common.wire.packed_round import DONE_BYTES, BlockDone
from common.wire.row_codec import FLOAT32, decode_rows, dtype_on_the_wire, rows_of
from coordinator.ranks.round_memory import RoundMemory
from coordinator.ranks.transports.transport import Arrived
from protos.shardmesh.v1 import shard_pb2


def result_of(answer: Arrived) -> shard_pb2.BlockResult | BlockDone:
    """Return what a rank says of its block."""
    response = answer.response
    return response if isinstance(response, BlockDone) else response.block_result


def sum_of(answers: Sequence[Arrived], shape: tuple[int, ...], wire: str) -> tuple[Floats, bool] | None:
    """Return the sum of all partial sums and whether it looks finite, where they lie in messages as they are added.

    Returns: None: not all do; they have to be decoded.
    """
    if dtype_on_the_wire(wire, shape[0]) != FLOAT32:
        return None
    return add_parts_of_messages([answer.message for answer in answers], DONE_BYTES, shape)


def partials_of(
    ranks: Sequence[int], answers: Sequence[Arrived], shape: tuple[int, ...], in_memory: Collection[int],
    memory: RoundMemory, wire: str, refuse: Callable[[int, ShapeError], Exception],
) -> tuple[Floats, ...]:  # fmt: skip
    """Return each rank's partial sum, float32.

    Args: in_memory: ranks whose sums may lie in memory; refuse: what to raise when a rank's answer is no such tensor.
    """
    found = []
    for rank, answer in zip(ranks, answers, strict=True):
        place = memory.answer_place(rank, shape) if rank in in_memory else None
        try:
            found.append(_partial(answer, shape, wire, place))
        except ShapeError as error:
            raise refuse(rank, error) from error
    return tuple(found)


def _partial(answer: Arrived, shape: tuple[int, ...], wire: str, place: Floats | None) -> Floats:
    """Return one rank's sum. Args: place: where it may lie instead. Raises: ShapeError: it is no such tensor."""
    result = result_of(answer)
    if not isinstance(result, BlockDone):
        return decode_rows(result.partial, shape, wire, place)
    if not result.is_in_memory:
        return rows_of(memoryview(answer.message)[DONE_BYTES:], shape, wire)
    if place is None or len(answer.message) != DONE_BYTES:
        raise ShapeError(f"a tensor of shape {list(shape)} is said to lie in memory that there is not")
    return place
