"""Is a tokenizer that was kept without its model the same tokenizer?"""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.tokenizer import load_tokenizer
from coordinator.tokenizer.keep import GGUF_NAME, keep_tokenizer
from tests.support.random_models import build, save
from tests.support.tiny_checkpoint import write_tiny_checkpoint

TEXT = "The sky is blue, 42 times."


@pytest.fixture(params=["directory", "gguf file", "directory with a gguf file"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a model with a tokenizer."""
    if request.param == "directory":
        return write_tiny_checkpoint(tmp_path / "model")
    file = save(build(layers=1), tmp_path / "model", "gguf")
    return file if request.param == "gguf file" else file.parent


def test_a_kept_tokenizer_says_what_the_model_s_own_does(model: Path, tmp_path: Path) -> None:
    """The same tokens, the same text, the same ends; and none of the weights."""
    kept = tmp_path / "kept"
    kept.mkdir()
    keep_tokenizer(model, kept)
    ours, theirs = load_tokenizer(kept), load_tokenizer(model)
    assert ours.encode(TEXT) == theirs.encode(TEXT)
    assert ours.decode(ours.encode(TEXT)) == theirs.decode(theirs.encode(TEXT))
    assert (ours.bos_id, ours.eos_ids) == (theirs.bos_id, theirs.eos_ids)
    assert not list(kept.glob("*.safetensors"))


def test_of_a_gguf_only_the_metadata_is_kept(tmp_path: Path) -> None:
    """A part of the file, with no tensor in it."""
    file = save(build(), tmp_path / "model", "gguf")
    kept = tmp_path / "kept"
    kept.mkdir()
    keep_tokenizer(file, kept)
    assert (kept / GGUF_NAME).stat().st_size < file.stat().st_size / 2
