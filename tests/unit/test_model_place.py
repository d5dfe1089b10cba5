"""Is the one model of a directory found, whatever its files are called, and its vocabulary in the same place?

Does not cover: damaged indexes and shards (test_checkpoints_files.py), what is in the files (test_checkpoints.py).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from common.errors import CheckpointError, ModelNotFound, UnsupportedModel
from coordinator.checkpoints.model_place import find_model, gguf_of
from coordinator.models.records import name_for
from coordinator.tokenizer import load_tokenizer
from coordinator.tokenizer.keep import keep_tokenizer
from tests.support.damaged_models import refusal
from tests.support.random_models import build, save

TEXT = "The sky is blue."


def gguf_file(directory: Path, name: str = "model.gguf") -> Path:
    """Save a tiny GGUF model under a name of its own."""
    path = save(build(layers=1), directory, "gguf")
    return path.rename(directory / name)


@pytest.mark.parametrize("name", ["MODEL.GGUF", "Model.Gguf", "model", "sha256-0123abcd", "Llama-3.2-1B.Q8_0"])
@pytest.mark.parametrize("is_directory_named", [False, True])
def test_a_gguf_is_known_by_its_suffix_in_any_case_or_its_first_bytes(
    tmp_path: Path, name: str, is_directory_named: bool
) -> None:
    """Weights and vocabulary are found under whatever name the file has, alone or in its directory."""
    path = gguf_file(tmp_path, name)
    named = tmp_path if is_directory_named else path
    assert find_model(named) == path
    assert load_tokenizer(named).encode(TEXT)


@pytest.mark.parametrize(
    ("file", "name"),
    [("Llama-3.2-1B", "Llama-3.2-1B"), ("Qwen3-0.6B.GGUF", "Qwen3-0.6B"), ("big-00001-of-00003.gguf", "big")],
)
def test_a_loaded_file_is_called_as_it_is_without_its_suffix(tmp_path: Path, file: str, name: str) -> None:
    """A dot in a name begins no suffix, and the number of a part is no name."""
    (tmp_path / file).touch()
    assert name_for(tmp_path / file) == name


def test_a_file_with_the_suffix_comes_before_files_without(tmp_path: Path) -> None:
    """A copy put aside is no second model."""
    path = gguf_file(tmp_path)
    shutil.copy(path, tmp_path / "model.gguf.bak")
    assert find_model(tmp_path) == path


def test_a_file_of_another_kind_is_no_gguf(tmp_path: Path) -> None:
    """Without the suffix the first bytes decide, and a file too short for them is not one."""
    for content in (b"", b"GGU", b"GGML and so on"):
        (tmp_path / "model").write_bytes(content)
        assert "not a .gguf" in refusal(tmp_path / "model", ModelNotFound)


def test_several_ggufs_are_listed(tmp_path: Path) -> None:
    """Which quantization is meant cannot be guessed: the message has the names, few of many."""
    path = gguf_file(tmp_path)
    for number in range(6):
        shutil.copy(path, tmp_path / f"q{number}.GGUF")
    message = refusal(tmp_path, ModelNotFound)
    assert "7 .gguf files" in message
    assert "model.gguf, q0.GGUF" in message
    assert "3 more" in message
    with pytest.raises(ModelNotFound, match=r"7 \.gguf files"):
        load_tokenizer(tmp_path)


def test_a_configuration_beside_the_only_gguf_is_no_hindrance(tmp_path: Path) -> None:
    """The GGUF says all itself, as for llama.cpp: what config.json holds does not matter."""
    path = gguf_file(tmp_path)
    for content in ("{}", '{"model_type": "gemma3"}', "not even JSON"):
        (tmp_path / "config.json").write_text(content)
        assert find_model(tmp_path) == path


def test_several_ggufs_beside_a_configuration_are_listed(tmp_path: Path) -> None:
    """As without it."""
    path = gguf_file(tmp_path)
    shutil.copy(path, tmp_path / "other.gguf")
    (tmp_path / "config.json").write_text("{}")
    assert "2 .gguf files" in refusal(tmp_path, ModelNotFound)


@pytest.mark.parametrize("fmt", ["safetensors", "sharded", "bin", "sharded-bin"])
def test_weights_beside_the_configuration_come_before_a_gguf(tmp_path: Path, fmt: str) -> None:
    """As in transformers, which reads a GGUF only when it is named; the vocabulary comes from the same place."""
    save(build(layers=1), tmp_path, fmt)  # type: ignore[arg-type]  # one of Format
    path = gguf_file(tmp_path)
    assert not isinstance(find_model(tmp_path), Path)
    assert load_tokenizer(tmp_path).encode(TEXT) == load_tokenizer(path).encode(TEXT)
    assert find_model(path) == path


def test_a_vocabulary_comes_from_where_the_weights_come_from(tmp_path: Path) -> None:
    """tokenizer.json beside a GGUF may be of another model: the GGUF's own ids are those of its weights."""
    path = gguf_file(tmp_path)
    other = save(build(layers=1, vocab_size=300), tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {token: 299 - i for token, i in tokenizer["model"]["vocab"].items()}
    tokenizer["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load_tokenizer(tmp_path).encode(TEXT) == load_tokenizer(path).encode(TEXT)
    kept = tmp_path / "kept"
    kept.mkdir()
    keep_tokenizer(tmp_path, kept)
    assert load_tokenizer(kept).encode(TEXT) == load_tokenizer(path).encode(TEXT)


@pytest.mark.parametrize("files", [["adapter_config.json"], ["adapter_model.safetensors"], ["adapter_model.bin"]])
@pytest.mark.parametrize("has_config", [False, True])
def test_a_directory_of_an_adapter_alone_says_so(tmp_path: Path, files: list[str], has_config: bool) -> None:
    """What PEFT saves is no model: the message says adapter, of which model, and what to do."""
    model = save(build(layers=1), tmp_path / "model")
    directory = tmp_path / "adapter"
    directory.mkdir()
    for name in files:
        (directory / name).write_text('{"base_model_name_or_path": "some/base"}')
    if has_config:
        shutil.copy(model / "config.json", directory)
    message = refusal(directory, ModelNotFound)
    assert "only an adapter" in message
    assert "merge_and_unload" in message
    assert ("'some/base'" in message) == (files == ["adapter_config.json"])


def test_an_adapter_beside_a_model_is_refused_by_name(tmp_path: Path) -> None:
    """Elsewhere it would be applied: leaving it out in silence gives other numbers."""
    directory = save(build(layers=1), tmp_path)
    (directory / "adapter_config.json").write_text("{}")
    find_model(directory)
    (directory / "adapter_model.safetensors").touch()
    assert "adapter_model.safetensors" in refusal(directory, UnsupportedModel)


def test_a_gguf_without_a_vocabulary_takes_the_one_beside_it(tmp_path: Path) -> None:
    """The file has none that could contradict; without any file beside it there is none at all."""
    path = gguf_file(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"tokenizer.ggml.tokens", b"tokenizer.none.tokens"))
    with pytest.raises(CheckpointError, match="tokens"):
        load_tokenizer(tmp_path)
    shutil.copy(save(build(layers=1), tmp_path / "other") / "tokenizer.json", tmp_path)
    assert load_tokenizer(tmp_path).encode(TEXT)


def test_a_path_that_cannot_be_looked_at_is_no_bug_of_ours(tmp_path: Path) -> None:
    """A name that is too long, and the same below a directory."""
    for path in (tmp_path / ("x" * 300), tmp_path / ("y" * 300) / "model.gguf"):
        for look in (find_model, gguf_of):
            with pytest.raises(CheckpointError, match="cannot be read: File name too long"):
                look(path)
