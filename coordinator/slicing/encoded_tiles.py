"""The matrices of a tile in encodings of their own, as the source has them: blocks are cut between, never opened.

Covers: which rows and blocks of which tensor make a tile; blocks with a scale that is no finite number are refused.
Does not cover: how blocks lie in a tile (common/native/encodings.h), slices of one dtype (tiles.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.errors import CheckpointError
from common.weights.encodings import is_encoded, row_bytes
from common.weights.model_encodings import ModelEncodings
from common.weights.packed_blocks import not_finite_row
from common.weights.slice_format import ATTENTION, TensorPlace, TileLayout
from common.weights.stored_numbers import Bytes, Stored
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.checkpoints.matrix_names import tensor_of
from coordinator.slicing.finite import read_finite, read_finite_rows

BY_INPUT = ("output", "down")
"""Matrices that are cut by input."""


class EncodedBlock:
    """One layer's matrices of one kind of block; holds the one that is cut by input meanwhile."""

    def __init__(self, checkpoint: Checkpoint, layer: int, kind: str, encodings: ModelEncodings) -> None:
        self._checkpoint, self._layer = checkpoint, layer
        matrix = "output" if kind == ATTENTION else "down"
        name = tensor_of(matrix, layer)
        if is_encoded(encodings.of(matrix, layer)):
            self._by_input: Stored = finite_blocks(
                checkpoint, name, 0, checkpoint.spec.hidden_size, encodings.of(matrix, layer)
            )
        else:
            self._by_input = read_finite(checkpoint, name)

    def matrices(self, layout: TileLayout) -> Mapping[str, Sequence[Stored]]:
        """Return a tile's matrices: blocks as [outputs, bytes of a row], plain numbers as [in, out]."""
        return {place.name: [self._matrix(place, layout)] for place in layout.tensors if len(place.shape) > 1}

    def _matrix(self, place: TensorPlace, layout: TileLayout) -> Stored:
        head = self._checkpoint.spec.head_size
        if place.name in BY_INPUT:
            first = layout.first * (head if place.name == "output" else 1) - layout.skip
            return self._inputs(place, first)
        first, count = layout.first, layout.count
        if place.name == "query":
            first, count = first * head, count * head
        elif place.name in ("key", "value"):
            first, count = layout.kv_first * head, layout.kv_count * head
        name = tensor_of(place.name, self._layer)
        if is_encoded(place.dtype):
            return finite_blocks(self._checkpoint, name, first, first + count, place.dtype)
        numbers: Stored = read_finite_rows(self._checkpoint, name, first, first + count).T
        return numbers

    def _inputs(self, place: TensorPlace, first: int) -> Stored:
        """Return what the matrix that is cut by input has from an input on."""
        if not is_encoded(place.dtype):
            numbers: Stored = self._by_input[:, first : first + place.shape[0]].T
            return numbers
        start, count = row_bytes(place.dtype, first), row_bytes(place.dtype, place.shape[0])
        blocks: Stored = self._by_input[:, start : start + count]
        return blocks


def finite_blocks(checkpoint: Checkpoint, name: str, start: int, stop: int, encoding: str) -> Bytes:
    """Do as `Checkpoint.read_blocks`. Raises: CheckpointError: also for a scale that is not finite."""
    rows = checkpoint.read_blocks(name, start, stop)
    shape = checkpoint.shape(name)
    assert shape is not None, "it was read"
    row = not_finite_row(encoding, rows, shape[1])
    if row is not None:
        raise CheckpointError(f"{checkpoint.place(name)} holds a scale that is no finite number in row {start + row}: "
                              "the model itself is damaged and cannot answer; download it again, or take another copy"
                              )  # fmt: skip
    return rows
