"""Rotary tables of a sweep's rows, as the backend wants them; kept, since all layers have the same rows.

Covers: which rows, what is kept. Does not cover: the tables themselves (rotary.py), what a backend makes of them
(common/compute/backend.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.compute.backend import Backend
from common.model.model_spec import ModelSpec
from common.weights.stored_numbers import Floats
from shardnode.work.kv_cache import Segment
from shardnode.work.rotary import Rotary

BLOCK_ROWS = 64


class RowTables:
    """Of one model on one backend."""

    def __init__(self, spec: ModelSpec, backend: Backend) -> None:
        self._rotary = Rotary(spec.rope, spec.head_size)
        self._backend = backend
        self._last: tuple[object, list[Any]] | None = None  # of the last sweep's rows
        self._block: tuple[int, tuple[Floats, Floats]] | None = None  # of BLOCK_ROWS neighbouring positions, by number

    def of(self, segments: Sequence[Segment]) -> list[Any]:
        """Return what Backend.tables makes for each segment."""
        runs = [(s.first_position, s.row_count, s.rotary_length) for s in segments]
        if self._last is None or self._last[0] != runs:
            self._last = (runs, [self._backend.tables(*self._made(*run)) for run in runs])
        return self._last[1]

    def _made(self, first_position: int, row_count: int, rotary_length: int) -> tuple[Floats, Floats]:
        if row_count != 1 or not self._rotary.is_fixed:
            return self._rotary.tables(first_position, row_count, rotary_length)
        # Out of those of its neighbours: making a row's own takes longer than all that happens else between two tokens.
        number, row = divmod(first_position, BLOCK_ROWS)
        if self._block is None or self._block[0] != number:
            self._block = (number, self._rotary.tables(number * BLOCK_ROWS, BLOCK_ROWS, 0))
        cosine, sine = self._block[1]
        return cosine[row : row + 1], sine[row : row + 1]
