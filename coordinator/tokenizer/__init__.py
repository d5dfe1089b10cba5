"""Chooses the tokenizer for a model: a Hugging Face directory, or a GGUF file.

Does not cover: the formats themselves (hf_directory.py, merges_files.py, sentencepiece_model.py, gguf_vocab.py).
"""

from __future__ import annotations

from pathlib import Path

from common.errors import CheckpointError, ModelNotFound, UnsupportedModel
from coordinator.tokenizer.contract import Tokenizer
from coordinator.tokenizer.detokenizer import IncrementalDetokenizer
from coordinator.tokenizer.gguf_vocab import load_gguf_tokenizer
from coordinator.tokenizer.hf_directory import TEKKEN_FILE, VOCABULARY_FILES, load_directory_tokenizer

__all__ = ["IncrementalDetokenizer", "Tokenizer", "load_tokenizer"]


def load_tokenizer(model: Path) -> Tokenizer:
    """Read the tokenizer of a model directory or of a .gguf file.

    Raises:
        ModelNotFound: there is no model at this place.
        CheckpointError: no tokenizer is there, or its file is malformed.
        UnsupportedModel: a kind of tokenizer that we do not compute, by name.
    """
    if model.is_file() and model.suffix == ".gguf":
        return load_gguf_tokenizer(model)
    if not model.is_dir():
        raise ModelNotFound(f"no model at '{model}': give a model directory or a .gguf file")
    if any((model / name).is_file() for name in VOCABULARY_FILES):
        return load_directory_tokenizer(model)
    gguf_files = sorted(model.glob("*.gguf"))
    if len(gguf_files) == 1:
        return load_gguf_tokenizer(gguf_files[0])
    if gguf_files:
        raise ModelNotFound(f"'{model}' holds {len(gguf_files)} .gguf files: name the one to use")
    if (model / TEKKEN_FILE).is_file():
        raise UnsupportedModel(f"the tokenizer in '{model}' is {TEKKEN_FILE} alone, which is not supported; put the "
                               "tokenizer.json of the same model beside it")  # fmt: skip
    raise CheckpointError(f"no tokenizer in '{model}': tokenizer.json, tokenizer.model, vocab.json with merges.txt, or "
                          "one .gguf file is needed")  # fmt: skip
