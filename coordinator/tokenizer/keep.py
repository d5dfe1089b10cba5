"""Keeps a model's tokenizer without its weights, so that the model may go once its slices are made.

Covers: the files of a Hugging Face directory, the metadata of a GGUF file. Does not cover: reading them (__init__.py).
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from coordinator.checkpoints.gguf_file import read_gguf_header
from coordinator.tokenizer.template_files import template_files
from coordinator.tokenizer.vocabulary_place import VOCABULARY_FILES, vocabulary_place

KEPT_FILES = (
    *VOCABULARY_FILES, "tokenizer_config.json", "config.json", "generation_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
"""All that load_directory_tokenizer looks at, besides chat templates."""
GGUF_NAME = "vocabulary.gguf"
_TENSOR_COUNT_AT = 8
"""Behind the magic and the version: eight bytes, little-endian."""


def keep_tokenizer(model: Path, directory: Path) -> None:
    """Copy what `load_tokenizer` needs of `model` into an empty directory, where it gives the same tokenizer.

    Raises: ModelError: there is no tokenizer, or it cannot be read. OSError: the copy cannot be written.
    """
    source = vocabulary_place(model)
    if source.is_dir():
        for path in (*(model / name for name in KEPT_FILES), *template_files(model).values()):
            if path.is_file():
                (directory / path.relative_to(model)).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, directory / path.relative_to(model))
        return
    metadata_bytes = read_gguf_header(source).metadata_bytes
    with source.open("rb") as file:
        metadata = bytearray(file.read(metadata_bytes))
    metadata[_TENSOR_COUNT_AT : _TENSOR_COUNT_AT + 8] = struct.pack("<Q", 0)
    (directory / GGUF_NAME).write_bytes(metadata)
