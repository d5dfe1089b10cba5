"""Opens a model, whatever its file format: the seam between slicing and safetensors, `.bin` and GGUF files.

Covers: which reader is right. Names and row order are Hugging Face's Llama's for every format.
Does not cover: where it lies (model_place.py), the formats (safetensors_reader.py, bin_reader.py, gguf_reader.py),
tokenizers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from common.model.model_spec import ModelSpec
from common.weights.model_encodings import ModelEncodings
from common.weights.quantizing import QUANTIZED_DTYPES
from common.weights.stored_numbers import Bytes, Stored
from coordinator.checkpoints.model_place import find_model
from coordinator.checkpoints.safetensors_reader import SafetensorsCheckpoint


class Checkpoint(Protocol):
    """A model's weights, one tensor at a time; opening has checked that all are there with their right shapes."""

    @property
    def spec(self) -> ModelSpec:
        """The model's maths."""

    @property
    def dtype(self) -> str:
        """float32, float16 or bfloat16: what all matrices are stored as; float32 when they differ."""

    @property
    def encodings(self) -> ModelEncodings | None:
        """What all matrices are encoded as, where some are blocks that slices can keep; None: there are none."""

    @property
    def widened(self) -> tuple[str, ...]:
        """Encodings of the file, in its own words, that slices cannot keep: such matrices become float32."""

    @property
    def identity(self) -> str:
        """SHA-256, in hex, of the spec, the tensors' headers and samples of them; the directory does not count."""

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the tensor's shape, or None when there is no such tensor."""

    def place(self, name: str) -> str:
        """Return the file and the tensor's name in it, as errors say it. Raises: KeyError: no such tensor."""

    def read(self, name: str) -> Stored:
        """Return a whole tensor: stored dtype (float32 when quantized), C-contiguous, in memory of its own.

        Raises: CheckpointError: the file cannot be read any more. KeyError: no such tensor.
        """

    def read_rows(self, name: str, start: int, stop: int) -> Stored:
        """Return rows start..stop of dimension 0, otherwise as `read`.

        Raises: as `read`; InternalError: the tensor has no such rows.
        """

    def read_blocks(self, name: str, start: int, stop: int) -> Bytes:
        """Return rows of a matrix whose encoding is one of blocks as they are stored: [row_count, bytes of a row].

        Rows are in the order of `read_rows`. Raises: as `read_rows`.
        """

    def close(self) -> None:
        """Let go of files; may be called twice."""


def open_checkpoint(model: Path) -> Checkpoint:
    """Open what lies at a model's place (model_place.py).

    Raises: ModelNotFound: there is no model at this place. UnsupportedModel: its maths is not implemented.
        CheckpointError: a file of it is missing, damaged or hostile.
    """
    found = find_model(model)
    if isinstance(found, Path):
        from coordinator.checkpoints.gguf_reader import GgufCheckpoint  # and gguf, which takes long

        return GgufCheckpoint(found)
    spec, files = found
    if files.format == "safetensors":
        return SafetensorsCheckpoint(spec, files)
    from coordinator.checkpoints.bin_reader import BinCheckpoint

    return BinCheckpoint(spec, files)


def as_stored_in(checkpoint: Checkpoint, dtype: str) -> Checkpoint:
    """Return a checkpoint whose `encodings` are those of slices of this dtype, which a description has accepted."""
    if dtype in QUANTIZED_DTYPES:
        from coordinator.checkpoints.quantized import QuantizedCheckpoint  # and gguf, which takes long

        return QuantizedCheckpoint(checkpoint, dtype)
    return checkpoint
