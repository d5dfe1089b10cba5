"""Tiny saved models to be damaged in tests, and the one line with which they are refused.

Does not cover: models and formats (random_models.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import CheckpointError, ModelError
from coordinator.checkpoints.checkpoint import open_checkpoint
from tests.support.random_models import Format, build, save
from tests.support.safetensors_files import Array, read_tensors, write_tensors

WEIGHT_FILES: dict[str, str] = {
    "safetensors": "model.safetensors",
    "bin": "pytorch_model.bin",
    "gguf": "model.gguf",
}


def saved(directory: Path, fmt: Format = "safetensors") -> Path:
    """Save a tiny model and return what to open."""
    return save(build(layers=1, vocab_size=260), directory, fmt, tokenizer=False)


def refusal(model: Path, kind: type[ModelError] = CheckpointError) -> str:
    """Open `model`, which must fail, and return the one line that says why."""
    with pytest.raises(kind) as caught:
        open_checkpoint(model)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def rewrite_safetensors(directory: Path, change: Callable[[dict[str, Array]], object]) -> None:
    """Change the tensors of a saved model."""
    state = read_tensors(directory / "model.safetensors")
    change(state)
    write_tensors(state, directory / "model.safetensors")


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
