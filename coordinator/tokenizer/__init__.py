"""Chooses the tokenizer for a model: a Hugging Face directory, or a GGUF file.

Does not cover: which file counts (vocabulary_place.py), the formats themselves (hf_directory.py, merges_files.py,
sentencepiece_model.py, gguf_vocab.py).
"""

from __future__ import annotations

from pathlib import Path

from coordinator.tokenizer.contract import Tokenizer
from coordinator.tokenizer.detokenizer import IncrementalDetokenizer
from coordinator.tokenizer.hf_directory import load_directory_tokenizer
from coordinator.tokenizer.vocabulary_place import vocabulary_place

__all__ = ["IncrementalDetokenizer", "Tokenizer", "load_tokenizer"]


def load_tokenizer(model: Path) -> Tokenizer:
    """Read the tokenizer of a model directory or of a .gguf file.

    Raises:
        ModelNotFound: there is no model at this place.
        CheckpointError: no tokenizer is there, or its file is malformed.
        UnsupportedModel: a kind of tokenizer that we do not compute, by name.
    """
    place = vocabulary_place(model)
    if not place.is_file():
        return load_directory_tokenizer(place)
    from coordinator.tokenizer.gguf_vocab import load_gguf_tokenizer  # and gguf, which takes as long as all the rest

    return load_gguf_tokenizer(place)
