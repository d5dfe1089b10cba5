"""Does a directory hold an adapter (LoRA and the like), which changes a model and is none itself?

Covers: what PEFT saves. Does not cover: applying one, which nothing here does; adapters in GGUF (gguf_metadata.py).
"""

from __future__ import annotations

from pathlib import Path

from common.errors import CheckpointError, ModelNotFound, UnsupportedModel
from coordinator.checkpoints.config_values import read_json_object, shown

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapters.safetensors")
_MERGE = "merge the two first (in PEFT: merge_and_unload, then save_pretrained)"


def check_not_only_adapter(directory: Path) -> None:
    """Raise ModelNotFound when a directory that has no model holds an adapter."""
    if any((directory / name).is_file() for name in (_CONFIG, *_WEIGHTS)):
        raise ModelNotFound(f"{directory} holds only an adapter{_base(directory)}, which changes a model and is none; "
                            f"{_MERGE} and name the directory that this makes")  # fmt: skip


def check_no_adapter_beside(directory: Path) -> None:
    """Raise UnsupportedModel when an adapter lies beside a model: other programs apply it, and the numbers change."""
    for name in _WEIGHTS:
        if (directory / name).is_file():
            raise UnsupportedModel(f"{directory / name} is an adapter{_base(directory)}, which would be left out; "
                                   f"{_MERGE}, or move it elsewhere to run the model without it")  # fmt: skip


def _base(directory: Path) -> str:
    """Return ` for MODEL` where the adapter says which model it changes."""
    try:
        base = read_json_object(directory / _CONFIG).get("base_model_name_or_path")
    except CheckpointError:
        return ""
    return f" for {shown(base)}" if base else ""
