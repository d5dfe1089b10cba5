"""Where does a model's vocabulary lie: in a GGUF file, or in files of its directory?

Where the weights lie (coordinator/checkpoints/model_place.py): a vocabulary of another file may have other ids. Only
a GGUF file without any vocabulary takes the one beside it.
Does not cover: reading it (hf_directory.py, gguf_vocab.py).
"""

from __future__ import annotations

from pathlib import Path

from common.errors import CheckpointError
from coordinator.checkpoints.gguf_file import read_gguf_header
from coordinator.checkpoints.model_place import gguf_of
from coordinator.tokenizer.hf_directory import SENTENCEPIECE_FILE, TOKENIZER_FILE


def vocabulary_place(model: Path) -> Path:
    """Return the GGUF file, or the directory with a tokenizer's files.

    Raises: ModelNotFound: there is no model, or several. CheckpointError: no tokenizer is there.
    """
    gguf = gguf_of(model)
    is_beside = any((model / name).is_file() for name in (TOKENIZER_FILE, SENTENCEPIECE_FILE))
    if gguf is not None and not (is_beside and "tokenizer.ggml.tokens" not in read_gguf_header(gguf).metadata):
        return gguf
    if is_beside:
        return model
    raise CheckpointError(
        f"no tokenizer in '{model}': {TOKENIZER_FILE}, {SENTENCEPIECE_FILE} or one .gguf file is needed"
    )
