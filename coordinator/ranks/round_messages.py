"""What is sent to whom in a round: whole messages, or the few bytes that say no more than which block is next.

Covers: who sees memory, who understands packed rounds, who has heard whose rows they are. Does not cover: sending
(ranks.py), tensors that come back (round_tensors.py), the bytes themselves (common/wire/packed_round.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from common.weights.slice_format import ATTENTION, FFN, ITEM_BYTES
from common.weights.stored_numbers import Floats
from common.wire.packed_round import NEXT_BYTES, NextBlock, pack_next
from common.wire.row_codec import encode_rows, is_float32, row_bytes
from common.wire.tensor_codec import encode_in_memory
from coordinator.ranks.round_memory import RoundMemory
from coordinator.ranks.sweep import Sweep
from coordinator.ranks.transports.exchange import MOST_BYTES
from protos.shardmesh.v1 import shard_pb2

MOST_QUICK_BYTES = MOST_BYTES - NEXT_BYTES
_KINDS = {ATTENTION: shard_pb2.BLOCK_KIND_ATTENTION, FFN: shard_pb2.BLOCK_KIND_FFN}


class _Lane(NamedTuple):
    """Ranks that get the same message."""

    ranks: tuple[int, ...]
    in_memory: bool
    is_packed: bool


class RoundMessages:
    """The messages of one run. Made once all sessions are open."""

    def __init__(
        self, taking_part: Mapping[str, Sequence[int]], packed: Collection[int], memory: RoundMemory, wire: str
    ) -> None:
        """Args: taking_part: ranks by kind of block; packed: those that understand packed rounds; wire: the dtype."""
        self._memory, self._wire = memory, wire
        self._told: dict[str, Sweep | None] = dict.fromkeys(taking_part)
        """By kind of block: the sweep whose rows its ranks have heard last."""
        self._lanes = {
            (kind, is_long): _lanes(ranks, packed, memory.ranks() if is_long else ())
            for kind, ranks in taking_part.items()
            for is_long in (False, True)
        }
        self._have_one_lane = all(
            [lane.is_packed for lane in self._lanes[kind, False]] == [True] for kind in taking_part
        )
        # Ranks hear of a sweep's sequences with their first message of it: those without heads in layer 0's FFN.
        self._is_first = {ATTENTION: True, FFN: bool({*taking_part[FFN]} - {*taking_part[ATTENTION]})}

    def of_block(
        self, kind: str, layer: int, sweep: Sweep, rows: Floats, call_id: int, *, tells_waits: bool
    ) -> Iterator[tuple[tuple[int, ...], bytes]]:  # fmt: skip
        """Yield ranks and the message for them, each to be sent before the next is made: ranks that see memory first.

        Args: rows: the block's normed input, float32 [row_count, hidden_size].
        """
        place = self._memory.input_place(rows.shape)
        is_told, self._told[kind] = self._told[kind] is sweep, sweep
        for ranks, in_memory, is_packed in self._lanes[kind, place is not None]:
            if is_told and is_packed:
                head = pack_next(NextBlock(call_id, sweep.sweep_id, kind, layer, in_memory, tells_waits))
                if not in_memory:
                    yield ranks, head + row_bytes(rows, self._wire)
                    continue
                if place is not None and rows is not place:
                    place[...] = rows
                yield ranks, head
            else:
                request = self._whole(kind, layer, sweep, call_id, tells_waits=tells_waits)
                if in_memory and place is not None:
                    encode_in_memory(rows, request.run_block.input, place)
                else:
                    encode_rows(rows, self._wire, request.run_block.input)
                yield ranks, request.SerializeToString()

    def are_quick(self, sweep: Sweep, row_count: int, width: int) -> bool:
        """Tell whether a sweep's blocks, of every kind, are each one packed message of float32 for all ranks."""
        if not self._have_one_lane or any(told is not sweep for told in self._told.values()):
            return False
        return row_count * width * ITEM_BYTES["float32"] <= MOST_QUICK_BYTES and is_float32(self._wire, row_count)

    def _whole(
        self, kind: str, layer: int, sweep: Sweep, call_id: int, *, tells_waits: bool
    ) -> shard_pb2.RoundsRequest:  # fmt: skip
        """Return a request that lacks its input only."""
        request = shard_pb2.RoundsRequest(call_id=call_id)
        block = request.run_block
        block.sweep_id, block.layer, block.kind = sweep.sweep_id, layer, _KINDS[kind]
        block.tells_waits = tells_waits
        block.segments.extend(sweep.segments)
        if layer == 0 and sweep.changes is not None and self._is_first[kind]:
            block.changes.CopyFrom(sweep.changes)
        return request


def _lanes(ranks: Sequence[int], packed: Collection[int], seeing: Collection[int]) -> list[_Lane]:
    """Return who gets which message, those who see memory first. Args: seeing: ranks for which inputs lie there."""
    lanes = [
        _Lane(tuple(rank for rank in ranks if (rank in seeing) is in_memory and (rank in packed) is is_packed),
              in_memory, is_packed)
        for in_memory in (True, False) for is_packed in (True, False)
    ]  # fmt: skip
    return [lane for lane in lanes if lane.ranks]
