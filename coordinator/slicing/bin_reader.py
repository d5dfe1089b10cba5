"""Reads checkpoints of `pytorch_model*.bin` files, one shard open at a time, and never runs code from them.

Covers: files of torch.save since PyTorch 1.6 (a zip archive), loaded with weights_only=True and mapped.
Does not cover: the older format, which can only be loaded whole and is refused; which files a directory offers
(weight_files.py).
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from common.errors import CheckpointError
from common.model_spec import ModelSpec
from coordinator.slicing.config_values import shown
from coordinator.slicing.identity import model_identity, projection_dtype, settled_spec
from coordinator.slicing.source_tensor import SourceTensor, checked_rows
from coordinator.slicing.tensor_names import check_tensors
from coordinator.slicing.weight_files import WeightFiles, check_index

_MAPPED_BYTES = 64 << 20
"""A shard is closed and opened again when this much of it was touched: mapped pages count as our memory."""


class BinCheckpoint:
    """A `Checkpoint` (checkpoint.py) of one or more `.bin` files; for one thread."""

    def __init__(self, spec: ModelSpec, files: WeightFiles) -> None:
        """Read and check what every shard holds.

        Raises: CheckpointError, UnsupportedModel: see check_tensors; a file is missing, cut short, malformed, in the
            old format, or has code in it.
        """
        self._open_path: Path | None = None
        self._open_shard: Mapping[str, torch.Tensor] = {}
        self._touched_bytes = 0
        try:
            tensors = [tensor for path in files.paths for tensor in _describe(path, self._shard(path))]
            check_index(files, {(tensor.path.name, tensor.stored_name) for tensor in tensors})
            self._tensors = check_tensors(spec, tensors, str(files.directory))
            self.spec = settled_spec(spec, self._tensors, self.read_rows)
            self.dtype = projection_dtype(self._tensors)
            self.identity = model_identity(self.spec, self._tensors, self.read_rows)
        finally:
            self.close()

    def shape(self, name: str) -> tuple[int, ...] | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else tensor.shape

    def read(self, name: str) -> torch.Tensor:
        return self.read_rows(name, 0, self._tensors[name].shape[0])

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        tensor = self._tensors[name]
        start, stop = checked_rows(tensor, start, stop)
        if self._touched_bytes >= _MAPPED_BYTES:
            self.close()
        rows = self._shard(tensor.path)[tensor.stored_name][start:stop]
        self._touched_bytes += (stop - start) * tensor.row_bytes
        return rows.clone(memory_format=torch.contiguous_format)

    def close(self) -> None:
        """Let go of the shard that is mapped; reading opens it again."""
        self._open_path, self._open_shard, self._touched_bytes = None, {}, 0

    def _shard(self, path: Path) -> Mapping[str, torch.Tensor]:
        if path != self._open_path:
            self.close()
            self._open_shard = _load_shard(path)
            self._open_path = path
        return self._open_shard


def _load_shard(path: Path) -> dict[str, torch.Tensor]:
    """Return one shard's tensors, mapped, not read.

    Raises: CheckpointError: the file is not an archive of torch.save, is damaged, or would execute code.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} is cut short or in the format from before PyTorch 1.6; download it again, "
                                  "or save it anew as safetensors")  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch finds odd in a file is either refused below or no matter
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except CheckpointError:
        raise
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
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(f"{path}: {shown(name)} is not a plain tensor")
    return value


def _describe(path: Path, shard: Mapping[str, torch.Tensor]) -> Iterator[SourceTensor]:
    for name, tensor in shard.items():
        yield SourceTensor(
            name=name,
            shape=tuple(tensor.shape),
            dtype=tensor.dtype,
            encoding=str(tensor.dtype).removeprefix("torch."),
            path=path,
            offset_bytes=int(tensor.storage_offset()) * tensor.element_size(),
            size_bytes=tensor.numel() * tensor.element_size(),
            stored_name=name,
        )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
