"""One tensor of a checkpoint: what it is, where its bytes lie, and how a range of them is read.

Covers: reads straight into memory of our own, so that no mapped page counts against us or kills us.
Does not cover: which tensors a model needs (tensor_names.py), file formats (the readers).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import CheckpointError, InternalError
from common.weights.stored_numbers import NUMPY_DTYPES, Stored
from coordinator.checkpoints.config_values import shown


@dataclass(frozen=True, kw_only=True)
class SourceTensor:
    """A tensor under its Hugging Face name."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """What reading gives: one of NUMPY_DTYPES; of a tensor that holds no weights, what the format calls it."""
    encoding: str
    """What the file holds, in the format's own words: `BF16`, `Q4_1`."""
    path: Path
    offset_bytes: int
    """Where it starts in `path`."""
    size_bytes: int
    stored_name: str
    """Its name in the file."""

    @property
    def label(self) -> str:
        """Its name in the file, fit for one line of an error."""
        return shown(self.stored_name)

    @property
    def place(self) -> str:
        """Its file and its name there, fit for one line of an error."""
        return f"{self.path}: {self.label}"

    @property
    def row_bytes(self) -> int:
        """Bytes in the file of one row of dimension 0."""
        return self.size_bytes // self.shape[0]


def checked_rows(tensor: SourceTensor, start: int, stop: int) -> tuple[int, int]:
    """Return `(start, stop)`; a range that the tensor does not have is a bug of the caller.

    Raises: InternalError: not 0 <= start <= stop <= rows.
    """
    if not 0 <= start <= stop <= tensor.shape[0]:
        raise InternalError(f"rows {start}..{stop} of {tensor.name}, which has {tensor.shape[0]}")
    return start, stop


def read_stored_rows(tensor: SourceTensor, start: int, stop: int) -> Stored:
    """Return rows start..stop of a tensor whose file holds plain little-endian values of its dtype.

    Raises: CheckpointError: the file ends early or cannot be read.
    """
    rows = np.empty((stop - start, *tensor.shape[1:]), dtype=NUMPY_DTYPES[tensor.dtype])
    if rows.size:
        buffer = rows.reshape(-1).view(np.uint8).data
        read_into(tensor.path, tensor.offset_bytes + start * tensor.row_bytes, buffer)
    return rows


def read_into(path: Path, offset_bytes: int, buffer: memoryview) -> None:
    """Fill `buffer` with the bytes of `path` from `offset_bytes` on.

    Raises: CheckpointError: the file ends early or cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset_bytes)
            done = 0
            while done < len(buffer):
                count = file.readinto(buffer[done:])
                if not count:
                    raise CheckpointError(f"{path} ends {len(buffer) - done} bytes early; download it again")
                done += count
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
