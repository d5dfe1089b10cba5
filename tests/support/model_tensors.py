"""What is a model of a test, before it is a file: its configuration and its tensors.

Does not cover: making one and saving it (random_models.py, gguf_models.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from common.weights.stored_numbers import Floats, Stored, widened

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True, kw_only=True)
class RandomModel:
    """What config.json says, as transformers 5 spells it, and every tensor by its name; a tied head is not there."""

    config: dict[str, Any]
    tensors: dict[str, Stored]

    def floats(self, name: str) -> Floats:
        """Return a tensor as float32; of a tied head, the embedding."""
        is_tied_head = name == HEAD and HEAD not in self.tensors
        return widened(self.tensors[EMBEDDING if is_tied_head else name])
