"""Reads checkpoints of `pytorch_model*.bin` files, one tensor at a time, and never runs code from them.

torch, which is imported here alone and only then, reads each file's pickle once, with weights_only=True and onto the
meta device: shapes and places, no data. The bytes are then read by offset. (Mapping them instead, as torch can, leaves
the mapped pages counted against this process until some later garbage collection, and a file cut short while mapped
kills it.)
Covers: files of torch.save since PyTorch 1.6 (a zip archive); what to do where torch is not installed.
Does not cover: the older format, which is refused; which files a directory offers (weight_files.py).
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from common.errors import CheckpointError, UnsupportedModel
from common.model.model_spec import ModelSpec
from common.weights.stored_numbers import NUMPY_DTYPES, Stored
from coordinator.checkpoints.config_values import shown
from coordinator.checkpoints.identity import matrix_dtype, model_identity, settled_spec
from coordinator.checkpoints.pickle_scan import check_pickle
from coordinator.checkpoints.plain_numbers import PlainNumbers
from coordinator.checkpoints.source_tensor import SourceTensor, checked_rows, read_into, read_stored_rows
from coordinator.checkpoints.tensor_names import check_stored_tensors
from coordinator.checkpoints.weight_files import WeightFiles

if TYPE_CHECKING:
    import torch

_LOCAL_HEADER_BYTES = 30
"""Of a zip archive's entry, before its name and its extra field, whose lengths are the last four bytes."""


@dataclass(frozen=True, kw_only=True)
class _Strided:
    """A tensor whose values do not lie in its own order: how they lie in which bytes of the file."""

    storage_offset_bytes: int
    storage_bytes: int
    first_value: int
    stride: tuple[int, ...]


class BinCheckpoint(PlainNumbers):
    """A `Checkpoint` (checkpoint.py) of one or more `.bin` files; holds no file open."""

    def __init__(self, spec: ModelSpec, files: WeightFiles) -> None:
        """Read and check what every shard holds.

        Raises: CheckpointError, UnsupportedModel: see check_tensors; a file is missing, cut short, malformed, in the
            old format, or has code in it; torch is not installed.
        """
        torch = _imported_torch(files)
        self._strided: dict[tuple[Path, str], _Strided] = {}
        stored = [tensor for path in files.paths for tensor in self._describe(torch, path)]
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
        start, stop = checked_rows(tensor, start, stop)
        strided = self._strided.get((tensor.path, tensor.stored_name))
        if strided is None:
            return read_stored_rows(tensor, start, stop)
        storage = np.empty(strided.storage_bytes, dtype=np.uint8)
        read_into(tensor.path, strided.storage_offset_bytes, storage.data)
        dtype = NUMPY_DTYPES[tensor.dtype]
        values = np.ndarray(
            tensor.shape, dtype, buffer=storage.data, offset=strided.first_value * dtype.itemsize,
            strides=[step * dtype.itemsize for step in strided.stride],
        )  # fmt: skip
        rows: Stored = values[start:stop].copy(order="C")
        return rows

    def close(self) -> None:
        """Nothing is open between two reads."""

    def _describe(self, torch: ModuleType, path: Path) -> Iterator[SourceTensor]:
        """Yield the tensors of one shard, each known to lie within one record of the archive."""
        records = _data_records(path)
        for name, tensor in _load_shapes(torch, path).items():
            storage = tensor.untyped_storage()
            storage_offset, storage_bytes = getattr(storage, "_checkpoint_offset", None), storage.nbytes()
            first, size = int(tensor.storage_offset()), tensor.element_size()
            dtype = str(tensor.dtype).removeprefix("torch.")
            last = first + sum((count - 1) * step for count, step in zip(tensor.shape, tensor.stride(), strict=True))
            if storage_offset is None:
                raise CheckpointError(f"{path}: torch {torch.__version__} cannot tell where {shown(name)} lies; update "
                                      "torch, or use the model's safetensors files")  # fmt: skip
            if records.get(storage_offset) != storage_bytes:
                raise CheckpointError(f"{path} is damaged: {shown(name)} is not where it should be; download it again")
            if tensor.numel() and (last + 1) * size > storage_bytes:
                raise CheckpointError(f"{path} is damaged: {shown(name)} is larger than its data; download it again")
            if tensor.numel() * size > storage_bytes:  # as strides of 0 make it: gigabytes of a few bytes
                raise CheckpointError(f"{path}: {shown(name)} repeats its data; use the model's safetensors files")
            if not tensor.is_contiguous():
                self._strided[path, name] = _Strided(
                    storage_offset_bytes=storage_offset,
                    storage_bytes=storage_bytes // size * size,
                    first_value=first,
                    stride=tuple(tensor.stride()),
                )
            yield SourceTensor(
                name=name,
                shape=tuple(tensor.shape),
                dtype=dtype,
                encoding=dtype,
                path=path,
                offset_bytes=storage_offset + first * size,
                size_bytes=tensor.numel() * size,
                stored_name=name,
            )


def _imported_torch(files: WeightFiles) -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise UnsupportedModel(f"{files.paths[0]} can be read only with torch, which is not installed: "
                               "pip install 'shardmesh[torch]', for which torch's build without CUDA does (README.md "
                               "says how to get it), or convert the model to safetensors") from error  # fmt: skip
    return torch


def _load_shapes(torch: ModuleType, path: Path) -> dict[str, torch.Tensor]:
    """Return one shard's tensors without data; each storage knows its offset in the file.

    Raises: CheckpointError: the file is not an archive of torch.save, is damaged, or would execute code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch finds odd in a file is either refused below or no matter
            value = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # the loader is fed hostile bytes and raises whatever it stumbles over
        if type(error).__name__ == "UnpicklingError":
            raise CheckpointError(f"{path} holds more than weights and was not loaded: it may execute code of its own; "
                                  "use the model's safetensors files") from error  # fmt: skip
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}; download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a dictionary of tensors")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{path}: {shown(name)} is not a named tensor")
        if tensor.layout is not torch.strided or tensor.device.type != "meta" or tensor.is_quantized:
            raise CheckpointError(f"{path}: {shown(name)} is not a plain tensor")
    return value


def _data_records(path: Path) -> dict[int, int]:
    """Return where the archive's records start in the file, and their sizes, all in bytes.

    Raises: CheckpointError: not an archive, a record is compressed (torch.save compresses none) or reaches beyond the
        file, or the values are big-endian.
    """
    records: dict[int, int] = {}
    try:
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} is cut short or in the format from before PyTorch 1.6; download it again, "
                                  "or save it anew as safetensors")  # fmt: skip
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            file_bytes = path.stat().st_size
            for entry in archive.infolist():
                file.seek(entry.header_offset)
                header = file.read(_LOCAL_HEADER_BYTES)
                name_bytes, extra_bytes = (
                    int.from_bytes(header[26:28], "little"),
                    int.from_bytes(header[28:30], "little"),
                )
                start = entry.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
                if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                    raise CheckpointError(f"{path}: the record {shown(entry.filename)} is compressed, which torch.save "
                                          "never does; use the model's safetensors files")  # fmt: skip
                if start + entry.file_size > file_bytes:
                    raise CheckpointError(f"{path} ends before its record {shown(entry.filename)}; download it again")
                if entry.filename.endswith("data.pkl"):
                    check_pickle(archive.read(entry), str(path))
                if entry.filename.endswith("/byteorder") and archive.read(entry) != b"little":
                    raise CheckpointError(f"{path} holds big-endian values, which cannot be read")
                records[start] = entry.file_size
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}; download it again") from error
    return records


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
