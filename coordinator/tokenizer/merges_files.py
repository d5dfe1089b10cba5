"""Builds a pipeline out of `vocab.json` and `merges.txt`, the files of byte-level BPE from before tokenizer.json.

Covers: the two tokenizer classes of transformers that read such files for the families we run.
Does not cover: special tokens (special_tokens.py); other classes, which are refused by name.
Source: Qwen2Tokenizer and GPT2Tokenizer of transformers 5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

from common.errors import CheckpointError, UnsupportedModel
from coordinator.tokenizer.byte_level_pipeline import QWEN2, ByteLevelRules, byte_level_pipeline
from coordinator.tokenizer.vocabulary_place import MERGES_FILE, VOCAB_FILE

_END_OF_TEXT = AddedToken("<|endoftext|>", special=True)
RULES = {"Qwen2Tokenizer": QWEN2, "GPT2Tokenizer": ByteLevelRules()}
"""By tokenizer class."""
CLASS_TOKENS = {
    "Qwen2Tokenizer": {"unk_token": _END_OF_TEXT, "eos_token": _END_OF_TEXT, "pad_token": _END_OF_TEXT},
    "GPT2Tokenizer": {"unk_token": _END_OF_TEXT, "bos_token": _END_OF_TEXT, "eos_token": _END_OF_TEXT},
}
"""What a class assumes where the directory says nothing."""


def pipeline_of_merges(directory: Path, class_name: str, config: dict[str, Any]) -> Pipeline:
    """Return the pipeline of the two files, without special tokens.

    Args: class_name: the tokenizer class that reads them; config: tokenizer_config.json.
    Raises: CheckpointError: a file is missing or malformed. UnsupportedModel: another class, by name.
    """
    if class_name not in RULES:
        raise UnsupportedModel(
            f"'{directory}' has {VOCAB_FILE} and no tokenizer.json, and its tokenizer class is {class_name}; with "
            f"these files {' and '.join(RULES)} are supported"
        )
    for name in (VOCAB_FILE, MERGES_FILE):
        if not (directory / name).is_file():
            raise CheckpointError(f"the tokenizer in '{directory}' is not whole: {name} is missing; download it again")
    try:
        model = BPE.from_file(str(directory / VOCAB_FILE), str(directory / MERGES_FILE))
    except Exception as error:  # tokenizers raises nothing narrower.
        place = f"{VOCAB_FILE} and {MERGES_FILE} in '{directory}'"
        raise CheckpointError(f"{place} cannot be read: {error}") from error
    return byte_level_pipeline(model, RULES[class_name], prefix_space=bool(config.get("add_prefix_space", False)))
