"""Is a GGUF model that was split into parts read as the one model that it is, from whichever part is named?

Does not cover: one file (test_checkpoints.py), which file of a directory counts (test_model_place.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from common.errors import ModelNotFound
from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.checkpoints.model_place import find_model
from coordinator.checkpoints.tensor_names import expected_shapes
from coordinator.tokenizer import load_tokenizer
from tests.support.damaged_models import refusal
from tests.support.gguf_models import write_gguf
from tests.support.random_models import ROPES, build

MODEL = build(layers=2, rope=ROPES["llama3"], vocab_size=260)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Return the parts of a small model, in their order."""
    write_gguf(MODEL, tmp_path / "model.gguf", quantization="Q8_0", tensors_per_part=9)
    return sorted(tmp_path.glob("*.gguf"))


def test_parts_are_read_as_one_model(parts: list[Path], tmp_path: Path) -> None:
    """Every tensor and the vocabulary, whether the directory, the first or the last part is named."""
    (tmp_path / "whole").mkdir()
    whole = open_checkpoint(write_gguf(MODEL, tmp_path / "whole" / "model.gguf", quantization="Q8_0"))
    assert len(parts) == 3
    for named in (tmp_path, parts[0], parts[2]):
        assert find_model(named) == parts[0]
        checkpoint = open_checkpoint(named)
        assert checkpoint.spec == whole.spec
        assert checkpoint.spec.rope.rope_type == "factors"
        for name in expected_shapes(whole.spec):
            assert np.array_equal(checkpoint.read(name), whole.read(name)), name
        assert load_tokenizer(named).encode("The sky")


def test_parts_may_have_their_suffix_in_capitals(parts: list[Path], tmp_path: Path) -> None:
    """As any GGUF file."""
    for part in parts:
        part.rename(part.with_suffix(".GGUF"))
    open_checkpoint(tmp_path)
    open_checkpoint(parts[1].with_suffix(".GGUF"))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_part_that_is_missing_is_named(parts: list[Path], tmp_path: Path, missing: int) -> None:
    """One file of several did not arrive; the first one too has its line."""
    parts[missing].unlink()
    for named in (tmp_path, parts[(missing + 1) % 3]):
        message = refusal(named)
        assert parts[missing].name in message
        assert "missing" in message


def test_two_models_in_parts_are_told_apart(parts: list[Path], tmp_path: Path) -> None:
    """Their parts are not counted as so many models."""
    for part in parts:
        shutil.copy(part, tmp_path / part.name.replace("model", "other"))
    assert "2 .gguf files: model-00001-of-00003.gguf, other-00001-of-00003.gguf" in refusal(tmp_path, ModelNotFound)


def test_a_part_of_another_place_or_model_is_refused(parts: list[Path]) -> None:
    """What a file says of itself counts, and not its name."""
    shutil.copy(parts[2], parts[1])
    assert parts[1].name in refusal(parts[0])


def test_the_first_part_under_another_name_says_how_it_must_be_called(parts: list[Path], tmp_path: Path) -> None:
    """Where the others lie follows from its name, as for llama.cpp."""
    renamed = parts[0].rename(tmp_path / "model")
    assert "-00001-of-00003.gguf" in refusal(renamed)


def test_a_count_of_tensors_that_is_not_borne_out_is_refused(parts: list[Path]) -> None:
    """A part of an earlier conversion with fewer tensors."""
    data = parts[0].read_bytes()
    at = data.index(b"split.tensors.count") + len(b"split.tensors.count") + 4
    parts[0].write_bytes(data[:at] + bytes([data[at] + 1]) + data[at + 1 :])
    assert "tensors" in refusal(parts[0])
