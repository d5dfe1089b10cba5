"""Are all weights that slices are made of finite numbers? If not, whose are they: which tensor, in which file?

A model with NaN or infinity among its weights answers nothing, and later it would look as if a node were to blame.
What was just read is in the processor's cache, and two maxima of its bits tell.
"""

from __future__ import annotations

import numpy as np

from common.errors import CheckpointError
from common.weights.stored_numbers import STORED_NAMES, Stored, widened
from coordinator.checkpoints.checkpoint import Checkpoint

_INFINITY = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}
"""Its bits. Those of NaN without the sign are larger, those of every other number smaller."""


def read_finite(checkpoint: Checkpoint, name: str) -> Stored:
    """Do as `Checkpoint.read`. Raises: CheckpointError: also for a value that is not finite."""
    rows = checkpoint.read(name)
    _check(checkpoint, name, rows, 0)
    return rows


def read_finite_rows(checkpoint: Checkpoint, name: str, start: int, stop: int) -> Stored:
    """Do as `Checkpoint.read_rows`. Raises: CheckpointError: also for a value that is not finite."""
    rows = checkpoint.read_rows(name, start, stop)
    _check(checkpoint, name, rows, start)
    return rows


def row_not_finite(rows: Stored) -> int | None:
    """Return the first row with NaN or infinity in it, or None."""
    if not rows.size or not _is_spoiled(rows):
        return None
    return next(row for row in range(len(rows)) if _is_spoiled(rows[row : row + 1]))


def _is_spoiled(values: Stored) -> bool:
    """Say whether any is not finite: as signed integers the largest is a positive one, as unsigned ones a negative."""
    infinity = _INFINITY[STORED_NAMES[values.dtype]]
    size = values.dtype.itemsize
    sign = 1 << (8 * size - 1)
    return bool(values.view(f"i{size}").max() >= infinity or values.view(f"u{size}").max() >= sign | infinity)


def _check(checkpoint: Checkpoint, name: str, rows: Stored, first: int) -> None:
    row = row_not_finite(rows)
    if row is not None:
        values = widened(rows[row : row + 1])
        value = float(values[~np.isfinite(values)][0])
        raise CheckpointError(f"{checkpoint.place(name)} holds {value} in row {first + row}: the model itself is "
                              "damaged and cannot answer; download it again, or take another copy of it")  # fmt: skip
