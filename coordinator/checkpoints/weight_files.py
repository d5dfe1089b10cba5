"""Which files of a directory hold the weights: one file, or the shards that an index names.

Covers: `model.safetensors`, `pytorch_model.bin`, their `.index.json`; an index is hostile until checked.
Does not cover: what is in the files (the readers).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.errors import CheckpointError, ModelNotFound
from coordinator.checkpoints.config_values import read_json_object, shown

MAX_SHARD_COUNT = 4096
_WHOLE = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
"""In the order in which they count."""


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """The weight files of one directory, all of one format."""

    directory: Path
    format: Literal["safetensors", "bin"]
    paths: tuple[Path, ...]
    index: dict[str, str] = field(default_factory=dict)
    """Tensor name to file name, as an index says; empty when there is none. It says which files are read; which tensors
    they hold they say themselves, as in transformers."""


def has_weight_files(directory: Path) -> bool:
    """Say whether there is anything to read here, a shard without its index included (find_weight_files tells)."""
    return any((directory / name).is_file() for name in _WHOLE) or bool(_shards(directory))


def find_weight_files(directory: Path) -> WeightFiles:
    """Return the files to read; a single file comes before an index, safetensors before `.bin`, as in transformers.

    Raises: ModelNotFound: there are no weights. CheckpointError: an index is malformed or names a file that is
        missing or lies outside the directory.
    """
    for name in _WHOLE:
        path = directory / name
        if path.is_file():
            weight_format: Literal["safetensors", "bin"] = "safetensors" if ".safetensors" in name else "bin"
            if path.suffix == ".json":
                return _from_index(directory, weight_format, path)
            return WeightFiles(directory=directory, format=weight_format, paths=(path,))
    shards = _shards(directory)
    if shards:
        raise CheckpointError(f"{directory} has the shard {shards[0].name} but no index.json; download that too")
    raise ModelNotFound(f"{directory} holds no weights: model*.safetensors, pytorch_model*.bin or one .gguf is needed")


def _shards(directory: Path) -> list[Path]:
    return sorted([*directory.glob("model-*.safetensors"), *directory.glob("pytorch_model-*.bin")])


def _from_index(directory: Path, weight_format: Literal["safetensors", "bin"], index_path: Path) -> WeightFiles:
    weight_map = read_json_object(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index_path} has no 'weight_map'")
    names: set[str] = set()
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or not _is_plain_name(file):
            raise CheckpointError(f"{index_path} puts {shown(tensor)} into {shown(file)}, which is not a file of "
                                  "this directory")  # fmt: skip
        names.add(file)
    if len(names) > MAX_SHARD_COUNT:
        raise CheckpointError(f"{index_path} names {len(names)} files; at most {MAX_SHARD_COUNT} are possible")
    for name in sorted(names):
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory / name} is missing, but {index_path.name} names it; download it again")
    paths = tuple(directory / name for name in sorted(names))
    return WeightFiles(directory=directory, format=weight_format, paths=paths, index=weight_map)


def _is_plain_name(file: str) -> bool:
    """Say whether `file` is a bare name: a link may lead anywhere (caches are made of links), a path may not."""
    return bool(file) and file not in (".", "..") and not any(mark in file for mark in "/\\\0")
