"""Which tokenizer.* keys of a GGUF file change nothing, and which must be refused by name; its chat templates.

Does not cover: what the other keys mean (gguf_vocab.py, gguf_ends.py).
Source: the GGUF specification and the `gguf` package for the list of keys, llama.cpp for what they change.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import CheckpointError, UnsupportedModel
from coordinator.checkpoints.config_values import shown

PREFIX = "tokenizer.ggml."
TEMPLATE_KEY = "tokenizer.chat_template"
READ = frozenset({
    "model", "pre", "tokens", "token_type", "scores", "merges", "add_bos_token", "add_eos_token", "add_space_prefix",
})  # fmt: skip
"""Below tokenizer.ggml; every key that ends in `_token_id` is read, too, or names a token that has no effect."""
HARMLESS = frozenset({"token_type_count"})
_OFF: tuple[Any, ...] = (None, False, 0, "", [])


def check_gguf_keys(metadata: Mapping[str, Any], path: Path) -> None:
    """Raise UnsupportedModel, naming the key, when a key asks for something that is not computed."""
    for key, value in metadata.items():
        name = key.removeprefix(PREFIX)
        if name == key or name in READ | HARMLESS or name.endswith("_token_id") or value in _OFF:
            continue
        raise UnsupportedModel(f"{key} in '{path}' is {shown(value)}, which is not implemented")
    # llama.cpp never does this with words of bytes, and transformers does: there is no telling which is meant.
    if metadata.get(f"{PREFIX}model") == "gpt2" and metadata.get(f"{PREFIX}add_space_prefix"):
        raise UnsupportedModel(f"{PREFIX}add_space_prefix in '{path}' is True, which is not implemented for gpt2")


def gguf_chat_templates(metadata: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Return the chat templates by name; the usual one is `default`.

    Raises: CheckpointError: a template is not a text.
    """
    keys = {"default": TEMPLATE_KEY}
    keys |= {key.removeprefix(f"{TEMPLATE_KEY}."): key for key in metadata if key.startswith(f"{TEMPLATE_KEY}.")}
    templates = {name: metadata[key] for name, key in keys.items() if metadata.get(key) is not None}
    for name, template in templates.items():
        if not isinstance(template, str):
            raise CheckpointError(f"{keys[name]} in '{path}' is not a text; convert the model again")
    return templates
