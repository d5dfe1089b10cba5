"""Are the benchmark's large checkpoints whole, repeatable and readable? Tried with a tiny shape."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.tokenizer import load_tokenizer
from tests.support import true_shapes
from tests.support.true_shapes import LLAMA_3_8B, OPEN_LLAMA_3B, Shape, ensure_checkpoint

TINY = replace(LLAMA_3_8B, hidden=64, ffn=96, layers=2, query_heads=4, kv_heads=2, vocabulary=1200)


@pytest.fixture(autouse=True)
def small_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the repeated block smaller than the largest matrix, as it is for a real shape."""
    monkeypatch.setattr(true_shapes, "BLOCK_ITEMS", 1 << 15)


@pytest.mark.parametrize(
    ("shape", "parameters"), [(OPEN_LLAMA_3B, 3_426_473_600), (LLAMA_3_8B, 8_030_261_248)], ids=lambda value: str(value)
)
def test_a_shape_has_as_many_parameters_as_the_real_model(shape: Shape, parameters: int) -> None:
    """The counts are the ones that the models' own safetensors files tell."""
    assert shape.byte_count == 2 * parameters


def test_a_checkpoint_opens_and_its_weights_differ_from_matrix_to_matrix(tmp_path: Path) -> None:
    """Our reader accepts it, norms are ones, and no two matrices are the same run of random numbers."""
    assert ensure_checkpoint(tmp_path / "model", TINY)
    open_checkpoint(tmp_path / "model").close()
    with safe_open(tmp_path / "model" / "model.safetensors", "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    assert [(name, tensors[name].shape) for name, _ in TINY.tensors()] == list(TINY.tensors())
    matrices = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 2}
    assert len({tensor.tobytes()[:512] for tensor in matrices.values()}) == len(matrices)
    assert all(0.018 < tensor.astype("float32").std() < 0.022 for tensor in matrices.values())
    assert all((tensor == 1).all() for tensor in tensors.values() if tensor.ndim == 1)


def test_a_checkpoint_is_the_same_every_time_and_written_once(tmp_path: Path) -> None:
    """Two directories get the same bytes; a complete one is left alone; a half one is begun again."""
    digests = set()
    for name in ("one", "two"):
        (tmp_path / f".{name}.unfinished").mkdir()
        assert ensure_checkpoint(tmp_path / name, TINY)
        digests.add(hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).digest())
    assert len(digests) == 1
    assert not ensure_checkpoint(tmp_path / "one", TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_every_id_is_a_token_and_text_survives(tmp_path: Path) -> None:
    """What a random model says can be printed, and a prompt is what it was."""
    ensure_checkpoint(tmp_path / "model", TINY)
    tokenizer = load_tokenizer(tmp_path / "model")
    text = "the river, naïve"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert all(tokenizer.decode([token_id]) for token_id in range(935, TINY.vocabulary))
