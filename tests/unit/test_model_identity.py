"""Is a model known again wherever it lies, told apart from every other, and known to the slices of earlier builds?

Does not cover: slices that belong to another model (test_splitter.py), the slices themselves
(tests/contract/test_made_by_earlier_builds.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coordinator.checkpoints.checkpoint import open_checkpoint
from tests.support.random_models import FORMATS, Format, build, save

DEMO_IDENTITY = "1741fcd52f9f73e72109ad6694f861993431b19aab7c7c3df34fd11afe11b7f3"
IDENTITIES: dict[tuple[Format, str], str] = {
    ("safetensors", "float32"): "f767f65d3ee244fc",
    ("safetensors", "float16"): "e912a5bc91f28139",
    ("safetensors", "bfloat16"): "b20b4e6c8b177790",
    ("bin", "float32"): "e8f339559c61099e",
    ("bin", "float16"): "40c23f55d50a0ce1",
    ("bin", "bfloat16"): "44ffb2285d80ffd6",
    ("gguf", "float32"): "2549a12948f0c592",
    ("gguf", "float16"): "7cdee567c38bf1d4",
    ("gguf", "bfloat16"): "8559ef626b40be2d",
}
"""Of `build(layers=1)`, as commit d4e2135 makes them; the first 64 bits."""


def test_the_demo_model_is_the_one_that_it_was(demo_model: Path) -> None:
    """A quantized GGUF, named by its directory or by its file."""
    assert open_checkpoint(demo_model).identity == DEMO_IDENTITY
    assert open_checkpoint(demo_model / "model.gguf").identity == DEMO_IDENTITY


@pytest.mark.parametrize("fmt", FORMATS)
def test_identity_follows_the_files_and_not_the_place(tmp_path: Path, fmt: Format) -> None:
    """A copy elsewhere is the same model."""
    path = save(build(layers=1), tmp_path / "here", fmt)
    identity = open_checkpoint(path).identity
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert open_checkpoint(tmp_path / "there" / path.relative_to(tmp_path / "here")).identity == identity
    assert len(identity) == 64


@pytest.mark.parametrize(("fmt", "dtype"), IDENTITIES)
def test_identity_is_what_earlier_builds_make_of_the_files(tmp_path: Path, fmt: Format, dtype: str) -> None:
    """Slices on people's disks belong to it."""
    saved = save(build(layers=1, dtype=dtype), tmp_path, fmt, tokenizer=False)
    assert open_checkpoint(saved).identity.startswith(IDENTITIES[fmt, dtype])


@pytest.mark.parametrize("fmt", FORMATS)
def test_identity_tells_models_apart(tmp_path: Path, fmt: Format) -> None:
    """Other weights under equal headers (fine-tuning) are another model, and so is another configuration."""
    variants = {
        "base": build(layers=1),
        "fine-tuned": build(layers=1, seed=1),
        "theta": build(layers=1, theta=20000.0),
        "half": build(layers=1, dtype="float16"),
    }
    identities = {open_checkpoint(save(model, tmp_path / name, fmt)).identity for name, model in variants.items()}
    assert len(identities) == len(variants)
