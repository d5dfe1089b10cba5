"""What lies where a model should: GGUF, or a config with weights?

Where both lie in one directory, weights beside config.json come first, as in transformers, which reads GGUF only when
the file is named. Whose weights are read, its vocabulary is read too (coordinator/tokenizer follows `gguf_of`).
Covers: mistakes that can be told before any weight file is opened. Does not cover: what is in the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import CheckpointError, ModelNotFound
from coordinator.checkpoints.adapter import check_no_adapter_beside, check_not_only_adapter
from coordinator.checkpoints.config_values import read_json_object
from coordinator.checkpoints.gguf_place import first_part, is_gguf, only_gguf
from coordinator.checkpoints.weight_files import WeightFiles, find_weight_files, has_weight_files

if TYPE_CHECKING:
    from common.model.model_spec import ModelSpec

CONFIG_FILE = "config.json"


def find_model(model: Path) -> Path | tuple[ModelSpec, WeightFiles]:
    """Return the one GGUF file to read, or a Hugging Face directory's maths and weight files.

    Args: model: a Hugging Face directory, a GGUF file, or a directory with exactly one GGUF model.
    Raises: ModelNotFound: there is no model at this place. UnsupportedModel: its maths is not implemented.
        CheckpointError: a file is missing, or config or index cannot be used.
    """
    with _readable(model):
        return _find_model(model)


def _find_model(model: Path) -> Path | tuple[ModelSpec, WeightFiles]:
    gguf = _gguf_of(model)
    if gguf is not None:
        return gguf
    if not has_weight_files(model):
        check_not_only_adapter(model)
    if not (model / CONFIG_FILE).is_file():
        raise ModelNotFound(f"{model} holds neither config.json nor a .gguf file; is it a model's directory?")
    from coordinator.checkpoints.model_config import spec_from_config  # who reads a tokenizer has no use for it

    spec, files = spec_from_config(read_json_object(model / CONFIG_FILE)), find_weight_files(model)
    check_no_adapter_beside(model)
    return spec, files


def gguf_of(model: Path) -> Path | None:
    """Return the GGUF file that a model is read from, the first of its parts; None: the directory's own files count.

    Raises: ModelNotFound: nothing is there, a file of another kind, or several GGUF models. CheckpointError: the
        directory cannot be read, or a first part is missing.
    """
    with _readable(model):
        return _gguf_of(model)


@contextmanager
def _readable(model: Path) -> Iterator[None]:
    """Translate what looking at a path raises: where we may not look, and for a name that is too long."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{model} cannot be read: {error.strerror}") from error


def _gguf_of(model: Path) -> Path | None:
    if model.is_file():
        if not is_gguf(model):
            raise ModelNotFound(f"{model} is a file, but not a .gguf; name the model's directory")
        return first_part(model)
    if not model.is_dir():
        raise ModelNotFound(f"{model} does not exist; name a model's directory or a .gguf file")
    if (model / CONFIG_FILE).is_file() and has_weight_files(model):
        return None
    return only_gguf(model)
