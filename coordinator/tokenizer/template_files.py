"""Which chat templates a Hugging Face directory has: files of their own, else what tokenizer_config.json holds.

Does not cover: rendering one (chat_template.py).
Source: PreTrainedTokenizerBase of transformers 5, which lets any file take the place of all of the config's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import CheckpointError

TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_DIRECTORY = "additional_chat_templates"
DEFAULT = "default"


def template_files(directory: Path) -> dict[str, Path]:
    """Return the files that hold templates, by the templates' names."""
    files = {path.stem: path for path in sorted((directory / TEMPLATE_DIRECTORY).glob("*.jinja")) if path.is_file()}
    if (directory / TEMPLATE_FILE).is_file():
        files[DEFAULT] = directory / TEMPLATE_FILE
    return files


def read_chat_templates(directory: Path, config: dict[str, Any]) -> dict[str, str]:
    """Return the templates by name; the usual one is `default`.

    Args: config: tokenizer_config.json.
    Raises: CheckpointError: a file cannot be read, or the config's entry is not one template or several with names.
    """
    files = template_files(directory)
    if files:
        return {name: _text(path) for name, path in files.items()}
    found = config.get("chat_template")
    if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
        found = {entry.get("name"): entry.get("template") for entry in found}
    templates = {} if found is None else found if isinstance(found, dict) else {DEFAULT: found}
    if not all(isinstance(part, str) for item in templates.items() for part in item):
        raise CheckpointError(
            f"chat_template in '{directory}/tokenizer_config.json' is neither a text nor a list of templates with names"
        )
    return dict(templates)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}") from error
