"""Opens a model, whatever its file format: the seam between slicing and safetensors, `.bin` and GGUF files.

Covers: which reader is right for a path. Names and row order are Hugging Face's Llama's for every format.
Does not cover: the formats (safetensors_reader.py, bin_reader.py, gguf_reader.py), tokenizers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from common.errors import CheckpointError, ModelNotFound
from common.model_spec import ModelSpec
from coordinator.slicing.bin_reader import BinCheckpoint
from coordinator.slicing.config_values import read_json_object
from coordinator.slicing.gguf_reader import GgufCheckpoint
from coordinator.slicing.model_config import spec_from_config
from coordinator.slicing.safetensors_reader import SafetensorsCheckpoint
from coordinator.slicing.weight_files import find_weight_files


class Checkpoint(Protocol):
    """A model's weights, one tensor at a time; opening has checked that all are there with their right shapes."""

    @property
    def spec(self) -> ModelSpec:
        """The model's maths."""

    @property
    def dtype(self) -> str:
        """float32, float16 or bfloat16: what all matrices are stored as; float32 when they differ."""

    @property
    def identity(self) -> str:
        """SHA-256, in hex, of the spec, the tensors' headers and samples of them; the directory does not count."""

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the tensor's shape, or None when there is no such tensor."""

    def read(self, name: str) -> torch.Tensor:
        """Return a whole tensor: stored dtype (float32 when quantized), contiguous, in memory of its own.

        Raises: CheckpointError: the file cannot be read any more. KeyError: no such tensor.
        """

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows start..stop of dimension 0, otherwise as `read`.

        Raises: as `read`; InternalError: the tensor has no such rows.
        """

    def close(self) -> None:
        """Let go of files; may be called twice."""


def open_checkpoint(model: Path) -> Checkpoint:
    """Open a Hugging Face directory, a `.gguf` file, or a directory with exactly one `.gguf` and no config.json.

    Raises: ModelNotFound: there is no model at this place. UnsupportedModel: its maths is not implemented.
        CheckpointError: a file of it is missing, damaged or hostile.
    """
    if model.is_file():
        if model.suffix.lower() != ".gguf":
            raise ModelNotFound(f"{model} is a file, but not a .gguf; name the model's directory")
        return GgufCheckpoint(model)
    if not model.is_dir():
        raise ModelNotFound(f"{model} does not exist; name a model's directory or a .gguf file")
    config_path = model / "config.json"
    if not config_path.is_file():
        return GgufCheckpoint(_only_gguf(model))
    spec = spec_from_config(read_json_object(config_path))
    files = find_weight_files(model)
    if files.format == "safetensors":
        return SafetensorsCheckpoint(spec, files)
    return BinCheckpoint(spec, files)


def _only_gguf(directory: Path) -> Path:
    """Return the one `.gguf` of a directory without config.json."""
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix.lower() == ".gguf" and path.is_file())
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {error.strerror}") from error
    if not found:
        raise ModelNotFound(f"{directory} holds neither config.json nor a .gguf file; is it a model's directory?")
    if len(found) > 1:
        raise ModelNotFound(f"{directory} holds {len(found)} .gguf files; name one of them, such as {found[0]}")
    return found[0]
