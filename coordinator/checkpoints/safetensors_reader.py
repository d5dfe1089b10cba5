"""Reads checkpoints of safetensors files, one tensor at a time.

The safetensors library checks each file once; the bytes are then read by offset, because a mapped page counts as
this process's memory and a file cut short while mapped kills it.
Does not cover: which files a directory offers (weight_files.py).
Source: the format description of safetensors (8 bytes of header length, a JSON header, the data).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from common.errors import CheckpointError
from common.model.model_spec import ModelSpec
from common.weights.slice_format import SAFETENSORS_DTYPES
from common.weights.stored_numbers import Stored
from coordinator.checkpoints.identity import matrix_dtype, model_identity, settled_spec
from coordinator.checkpoints.panics import panics_as_errors
from coordinator.checkpoints.plain_numbers import PlainNumbers
from coordinator.checkpoints.source_tensor import SourceTensor, checked_rows, read_stored_rows
from coordinator.checkpoints.tensor_names import check_stored_tensors
from coordinator.checkpoints.weight_files import WeightFiles

_DTYPES = {theirs: ours for ours, theirs in SAFETENSORS_DTYPES.items()}


class SafetensorsCheckpoint(PlainNumbers):
    """A `Checkpoint` (checkpoint.py) of one or more safetensors files; holds no file open."""

    def __init__(self, spec: ModelSpec, files: WeightFiles) -> None:
        """Read and check all headers.

        Raises: CheckpointError, UnsupportedModel: see check_tensors; a file is missing, cut short or malformed.
        """
        stored = [tensor for path in files.paths for tensor in _read_header(path)]
        self._tensors = check_stored_tensors(spec, stored, files)
        self.spec = settled_spec(spec, self._tensors, self.read_rows)
        self.dtype = matrix_dtype(self._tensors)
        self.identity = model_identity(self.spec, self._tensors, self.read_rows)

    def shape(self, name: str) -> tuple[int, ...] | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else tensor.shape

    def place(self, name: str) -> str:
        return self._tensors[name].place

    def read(self, name: str) -> Stored:
        return self.read_rows(name, 0, self._tensors[name].shape[0])

    def read_rows(self, name: str, start: int, stop: int) -> Stored:
        tensor = self._tensors[name]
        return read_stored_rows(tensor, *checked_rows(tensor, start, stop))

    def close(self) -> None:
        """Nothing is open between two reads."""


def _read_header(path: Path) -> Iterator[SourceTensor]:
    """Yield the tensors of one file, after the library has found its header sound and its size right."""
    try:
        with panics_as_errors(), safe_open(path, framework="np"):
            pass  # opening checks the header, the file's size, and that ranges neither overlap nor leave holes
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_bytes))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}; download it again") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, stop = entry["data_offsets"]
        yield SourceTensor(
            name=name,
            shape=tuple(entry["shape"]),
            dtype=_DTYPES.get(entry["dtype"], entry["dtype"]),
            encoding=entry["dtype"],
            path=path,
            offset_bytes=8 + header_bytes + start,
            size_bytes=stop - start,
            stored_name=name,
        )
