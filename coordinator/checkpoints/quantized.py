"""A full checkpoint as one of few bits: its matrices quantized while slices are made of it.

    --weights-dtype q8_0     every matrix in blocks of 8 bits
    --weights-dtype q4_0     4 bits; embedding, head and the attention's values, which are few and cost most, keep 8

Covers: blocks of some rows. Does not cover: which matrix gets how many bits (common/weights/quantizing.py), how numbers
become blocks, which the `gguf` package does, as llama.cpp does without an importance matrix.
"""

from __future__ import annotations

import numpy as np

from common.weights.model_encodings import ModelEncodings
from common.weights.quantizing import quantized_encodings
from common.weights.stored_numbers import Bytes, Floats, Stored, widened
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.checkpoints.gguf_numbers import quantize
from coordinator.checkpoints.lean_gguf import GGMLQuantizationType
from coordinator.checkpoints.matrix_names import matrix_of


class QuantizedCheckpoint:
    """A `Checkpoint` (checkpoint.py) over another one, which it closes."""

    def __init__(self, source: Checkpoint, dtype: str) -> None:
        self._source = source
        self.spec, self.dtype, self.identity = source.spec, source.dtype, source.identity
        self.widened: tuple[str, ...] = ()
        self.encodings: ModelEncodings | None = quantized_encodings(source.spec, dtype, source.dtype)

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._source.shape(name)

    def place(self, name: str) -> str:
        return self._source.place(name)

    def read(self, name: str) -> Stored:
        return self._source.read(name)

    def read_rows(self, name: str, start: int, stop: int) -> Stored:
        return self._source.read_rows(name, start, stop)

    def read_blocks(self, name: str, start: int, stop: int) -> Bytes:
        assert self.encodings is not None
        rows: Floats = widened(self._source.read_rows(name, start, stop))
        encoding = self.encodings.of(*matrix_of(name))
        with np.errstate(all="ignore"):  # what is not finite stays so, and slicing refuses it
            return quantize(rows, GGMLQuantizationType[encoding.upper()])

    def close(self) -> None:
        self._source.close()
