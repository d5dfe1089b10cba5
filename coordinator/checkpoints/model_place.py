"""What lies where a model should: a `.gguf`, or a config with weights?

Covers: mistakes that can be told without torch, which takes seconds to import. Does not cover: what is in the files.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import CheckpointError, ModelNotFound
from common.model.model_spec import ModelSpec
from coordinator.checkpoints.config_values import read_json_object
from coordinator.checkpoints.model_config import spec_from_config
from coordinator.checkpoints.weight_files import WeightFiles, find_weight_files


def find_model(model: Path) -> Path | tuple[ModelSpec, WeightFiles]:
    """Return the one `.gguf` to read, or a Hugging Face directory's maths and weight files.

    Args: model: a Hugging Face directory, a `.gguf` file, or a directory with exactly one `.gguf` and no config.json.
    Raises: ModelNotFound: there is no model at this place. UnsupportedModel: its maths is not implemented.
        CheckpointError: a file is missing, or config or index cannot be used.
    """
    if model.is_file():
        if model.suffix.lower() != ".gguf":
            raise ModelNotFound(f"{model} is a file, but not a .gguf; name the model's directory")
        return model
    if not model.is_dir():
        raise ModelNotFound(f"{model} does not exist; name a model's directory or a .gguf file")
    config_path = model / "config.json"
    if not config_path.is_file():
        return _only_gguf(model)
    return spec_from_config(read_json_object(config_path)), find_weight_files(model)


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
