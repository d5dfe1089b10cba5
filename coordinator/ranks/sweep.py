"""Whose rows go through the layers together, and which sequences end and begin with them. Pure but for messages.

Covers: rows of sequences that are refused, taken out half-way; what a round comes to. Does not cover: which rows
(engine/schedule.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.errors import ShardmeshError
from common.weights.stored_numbers import Floats
from protos.shardmesh.v1 import shard_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """One pass over all blocks."""

    sweep_id: int
    """Larger than that of every sweep before it on the same ranks."""
    segments: Sequence[shard_pb2.Segment]
    """Whose rows these are, one after another; a sequence may have several, neighbours in order of position."""
    changes: shard_pb2.SequenceChanges | None = None
    """What ends and begins before it; ranks are told with their first message of it."""

    sequence_ids: tuple[int, ...] = field(init=False)
    """The sequences that have rows, each once."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sequence_ids", tuple(dict.fromkeys(one.sequence_id for one in self.segments)))

    def rows_of(self, sequence_ids: Collection[int], *, others: bool = False) -> npt.NDArray[np.int64]:
        """Return the numbers of some sequences' rows, int64, ascending. Args: others: of all but these."""
        found, first_row = [np.empty(0, np.int64)], 0
        for segment in self.segments:
            if (segment.sequence_id in sequence_ids) is not others:
                found.append(np.arange(first_row, first_row + segment.row_count))
            first_row += segment.row_count
        return np.concatenate(found)

    def without(self, sequence_ids: Collection[int]) -> Sweep:
        """Return the sweep that is left when some sequences are taken out."""
        return replace(self, segments=[one for one in self.segments if one.sequence_id not in sequence_ids])


class Summed(NamedTuple):
    """What a round, or several layers, came to."""

    output: Floats
    """float32 [row_count, hidden_size]; rows of sequences in `spoiled` mean nothing."""
    spoiled: dict[int, ShardmeshError]
    """By id: sequences that some rank refused, or for which numbers that are not finite came."""
    next_layer: int


class SweptRows(NamedTuple):
    """One request's part in a sweep."""

    request_id: str
    """What the request is called."""
    row_count: int
    finish_reason: str | None
    """How it has ended with this sweep; None: it goes on."""


class Swept(NamedTuple):
    """A sweep that is over. Instants are time.perf_counter's."""

    sweep_id: int
    started: float
    headed: float
    """When the layers were done, and the head began."""
    finished: float
    rows: tuple[SweptRows, ...]
    """Whose rows it had."""
