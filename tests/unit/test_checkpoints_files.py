"""Is a model's directory with missing, surplus or hostile files refused in one line that names the file?

Does not cover: what is inside weight files (test_checkpoints_hostile.py), config.json's keys (test_families.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import ModelNotFound
from coordinator.checkpoints.checkpoint import open_checkpoint
from tests.support.damaged_models import refusal, rewrite_json, saved
from tests.support.random_models import Format, build, save
from tests.support.safetensors_files import read_tensors, write_tensors


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    """No such directory."""
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere", ModelNotFound)


def test_a_directory_without_a_model_says_what_it_lacks(tmp_path: Path) -> None:
    """Neither config.json nor a .gguf."""
    assert "config.json" in refusal(tmp_path, ModelNotFound)


def test_a_file_that_is_no_gguf_is_not_a_model(tmp_path: Path) -> None:
    """Someone names the weights instead of the directory."""
    saved(tmp_path)
    assert "directory" in refusal(tmp_path / "model.safetensors", ModelNotFound)


def test_a_directory_of_two_ggufs_asks_for_one(tmp_path: Path) -> None:
    """Which of several quantizations is meant cannot be guessed."""
    path = saved(tmp_path, "gguf")
    path.with_name("other.gguf").write_bytes(path.read_bytes())
    assert "2 .gguf files" in refusal(tmp_path, ModelNotFound)


def test_a_configuration_without_weights_says_so(tmp_path: Path) -> None:
    """A download that stopped early."""
    (saved(tmp_path) / "model.safetensors").unlink()
    assert "holds no weights" in refusal(tmp_path, ModelNotFound)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"hidden_size": NaN}', '{"a": ' * 5000, "\xff\xfe"])
def test_a_configuration_that_is_not_a_json_object_is_refused(tmp_path: Path, content: str) -> None:
    """config.json is hostile until parsed."""
    (saved(tmp_path) / "config.json").write_bytes(content.encode("latin-1"))
    assert "config.json" in refusal(tmp_path)


@pytest.mark.parametrize("fmt", ["sharded", "sharded-bin"])
def test_a_missing_shard_is_named(tmp_path: Path, fmt: Format) -> None:
    """One file of several did not arrive."""
    saved(tmp_path, fmt)
    shard = min(tmp_path.glob("*-00002-of-*"))
    shard.unlink()
    assert shard.name in refusal(tmp_path)


@pytest.mark.parametrize("fmt", ["sharded", "sharded-bin"])
def test_shards_without_an_index_are_refused(tmp_path: Path, fmt: Format) -> None:
    """Which shards belong together is for the index to say."""
    saved(tmp_path, fmt)
    next(tmp_path.glob("*.index.json")).unlink()
    assert "index.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    "place", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\0b", 7, None]
)
def test_an_index_cannot_point_outside_the_directory(tmp_path: Path, place: object) -> None:
    """A shard's name is a name, never a path."""
    model = saved(tmp_path / "model", "sharded")
    (tmp_path / "secret.safetensors").write_bytes((next(model.glob("*-00001-of-*"))).read_bytes())
    rewrite_json(model / "model.safetensors.index.json", lambda v: v["weight_map"].update({"lm_head.weight": place}))
    assert "not a file of this directory" in refusal(model)


def test_a_tensor_that_only_the_index_has_is_named_with_its_file(tmp_path: Path) -> None:
    """A shard of another version: the one to download again is the one that should have it."""
    model = saved(tmp_path, "sharded")
    name = "model.norm.weight"
    weight_map = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    shard = model / weight_map[name]
    state = read_tensors(shard)
    state.pop(name)
    write_tensors(state, shard)
    message = refusal(model)
    assert shard.name in message
    assert name in message


@pytest.mark.parametrize("fmt", ["sharded", "sharded-bin"])
def test_which_tensors_a_shard_holds_it_says_itself(tmp_path: Path, fmt: Format) -> None:
    """The index may put a tensor into another shard, and list ones that the model has no use for: only files count."""
    model = saved(tmp_path, fmt)
    identity = open_checkpoint(model).identity
    first = min(model.glob("*-00001-of-*")).name
    more = dict.fromkeys(
        ["model.norm.weight", "model.layers.0.self_attn.rotary_emb.inv_freq", "of.another.model"], first
    )
    rewrite_json(next(model.glob("*.index.json")), lambda value: value["weight_map"].update(more))
    assert open_checkpoint(model).identity == identity


def test_a_tied_head_that_only_the_index_lists_is_no_hindrance(tmp_path: Path) -> None:
    """It is the embedding, as in transformers."""
    model = save(build(layers=1, tied=True), tmp_path, "sharded", tokenizer=False)
    shard = max(model.glob("*-00003-of-*")).name
    rewrite_json(model / "model.safetensors.index.json", lambda v: v["weight_map"].update({"lm_head.weight": shard}))
    assert open_checkpoint(model).spec.tied_embeddings


def test_an_index_without_a_weight_map_is_refused(tmp_path: Path) -> None:
    """Valid JSON is not yet an index."""
    model = saved(tmp_path, "sharded")
    (model / "model.safetensors.index.json").write_text('{"weight_map": []}')
    assert "weight_map" in refusal(model)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    """Which of the two counts cannot be known."""
    model = saved(tmp_path, "sharded")
    shards = sorted(model.glob("*.safetensors"))
    stolen = read_tensors(shards[0])
    name = next(iter(stolen))
    write_tensors({**read_tensors(shards[1]), name: stolen[name]}, shards[1])
    assert shards[0].name in refusal(model)
