"""Where does a model's vocabulary lie: in a GGUF file, or in files of its directory?

Where the weights lie (coordinator/checkpoints/model_place.py): a vocabulary of another file may have other ids. Only
a GGUF file without any vocabulary takes the one beside it.
Does not cover: reading it (hf_directory.py, gguf_vocab.py).
"""

from __future__ import annotations

from pathlib import Path

from common.errors import CheckpointError, UnsupportedModel
from coordinator.checkpoints.model_place import gguf_of

TOKENIZER_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"
VOCAB_FILE, MERGES_FILE = "vocab.json", "merges.txt"
VOCABULARY_FILES = (TOKENIZER_FILE, SENTENCEPIECE_FILE, VOCAB_FILE, MERGES_FILE)
"""One of them has to be there."""
TEKKEN_FILE = "tekken.json"


def vocabulary_place(model: Path) -> Path:
    """Return the GGUF file, or the directory with a tokenizer's files.

    Raises: ModelNotFound: there is no model, or several. CheckpointError: no tokenizer is there. UnsupportedModel: one
    that we do not compute.
    """
    gguf = gguf_of(model)
    is_beside = any((model / name).is_file() for name in VOCABULARY_FILES)
    if gguf is not None and not (is_beside and not _has_vocabulary(gguf)):
        return gguf
    if is_beside:
        return model
    if (model / TEKKEN_FILE).is_file():
        raise UnsupportedModel(f"the tokenizer in '{model}' is {TEKKEN_FILE} alone, which is not supported; put the "
                               "tokenizer.json of the same model beside it")  # fmt: skip
    raise CheckpointError(f"no tokenizer in '{model}': tokenizer.json, tokenizer.model, vocab.json with merges.txt, or "
                          "one .gguf file is needed")  # fmt: skip


def _has_vocabulary(gguf: Path) -> bool:
    from coordinator.checkpoints.gguf_file import read_gguf_header  # and gguf, which takes long

    return "tokenizer.ggml.tokens" in read_gguf_header(gguf).metadata
