"""Chooses the tokenizer for a model: a Hugging Face directory, or a GGUF file.

Covers: reading it in this process, for those that may die of it (nursery_program.py), tests and benchmarks; programs
take `TokenizerApart`.
Does not cover: which file counts (vocabulary_place.py), the formats themselves (hf_directory.py, merges_files.py,
sentencepiece_model.py, gguf_vocab.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from coordinator.tokenizer.apart import TokenizerApart
    from coordinator.tokenizer.contract import Tokenizer
    from coordinator.tokenizer.detokenizer import IncrementalDetokenizer
    from coordinator.tokenizer.nursery import Nursery

__all__ = ["IncrementalDetokenizer", "Nursery", "Tokenizer", "TokenizerApart", "load_tokenizer"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: the nursery (nursery_early.py) has nothing that only others need."""
    if name == "TokenizerApart":
        from coordinator.tokenizer.apart import TokenizerApart

        return TokenizerApart
    if name == "Nursery":
        from coordinator.tokenizer.nursery import Nursery

        return Nursery
    if name == "IncrementalDetokenizer":
        from coordinator.tokenizer.detokenizer import IncrementalDetokenizer

        return IncrementalDetokenizer
    if name == "Tokenizer":
        from coordinator.tokenizer.contract import Tokenizer

        return Tokenizer
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def load_tokenizer(model: Path) -> Tokenizer:
    """Read the tokenizer of a model directory or of a .gguf file.

    Raises:
        ModelNotFound: there is no model at this place.
        CheckpointError: no tokenizer is there, or its file is malformed.
        UnsupportedModel: a kind of tokenizer that we do not compute, by name.
    """
    # Here and not at the top: programs do not read tokenizers themselves.
    from coordinator.tokenizer.vocabulary_place import vocabulary_place

    place = vocabulary_place(model)
    if not place.is_file():
        from coordinator.tokenizer.hf_directory import load_directory_tokenizer

        return load_directory_tokenizer(place)
    from coordinator.tokenizer.gguf_vocab import load_gguf_tokenizer

    return load_gguf_tokenizer(place)
