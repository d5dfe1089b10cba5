"""Tiny saved models to be damaged in tests, and the one line with which they are refused.

Does not cover: models and formats (random_models.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import CheckpointError, ModelError
from coordinator.checkpoints.checkpoint import open_checkpoint
from tests.support.random_models import Format, build, save

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


def rewrite_safetensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a saved model."""
    state = load_file(directory / "model.safetensors")
    change(state)
    save_file(state, directory / "model.safetensors")


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
