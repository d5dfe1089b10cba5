"""Are a model's tensors known by whatever names trainers and wrappers save them, and nothing else taken for them?

Does not cover: GGUF's names, missing and surplus tensors in general (test_checkpoints_hostile.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from common.errors import CheckpointError, UnsupportedModel
from coordinator.checkpoints.checkpoint import open_checkpoint
from tests.support.damaged_models import refusal, rewrite_json, rewrite_safetensors, saved
from tests.support.random_models import build, save, save_bin
from tests.support.safetensors_files import read_tensors, write_tensors

UP = "model.layers.0.mlp.up_proj.weight"
SAVERS: dict[str, Callable[[str], str]] = {
    "AutoModel": lambda name: name.removeprefix("model."),
    "some names without": lambda name: name.removeprefix("model.") if "norm" in name else name,
    "DistributedDataParallel": lambda name: f"module.{name}",
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "torch.compile of the base model": lambda name: name.replace("model.", "model._orig_mod.", 1),
    "torch.compile of each layer": lambda name: name.replace("layers.0.", "layers.0._orig_mod."),
    "FSDP and checkpointing": lambda name: (
        "_fsdp_wrapped_module." + name.replace("layers.0.", "layers.0._checkpoint_wrapped_module.")
    ),
    "two wrappers": lambda name: f"_orig_mod.module.{name}",
    "PEFT": lambda name: f"base_model.model.{name}",
    "TRL": lambda name: f"pretrained_model.{name}",
    "another base name": lambda name: name.replace("model.", "transformer.", 1),
    "a wrapped base model": lambda name: name.replace("model.", "module.", 1),
}


@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_tensor_is_known_by_the_name_that_a_saver_gives_it(tmp_path: Path, saver: str, tied: bool) -> None:
    """Prefixes and wrappers say nothing of the maths: the same tensors come out."""
    model = build(layers=1, tied=tied)
    save(model, tmp_path, tokenizer=False)
    state = read_tensors(tmp_path / "model.safetensors")
    write_tensors({SAVERS[saver](name): tensor for name, tensor in state.items()}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    for name, tensor in state.items():
        assert np.array_equal(checkpoint.read(name), tensor)


def test_shards_and_bin_files_may_have_other_names_too(tmp_path: Path) -> None:
    """The rule holds for every format of a directory."""
    model = build("qwen3", layers=1, tied=True)
    save(model, tmp_path, "bin", tokenizer=False)
    base = {name.removeprefix("model."): tensor for name, tensor in model.tensors.items()}
    save_bin(base, tmp_path / "pytorch_model.bin")
    assert np.array_equal(open_checkpoint(tmp_path).read(UP), model.tensors[UP])


def test_a_tied_matrix_may_be_kept_under_its_other_name(tmp_path: Path) -> None:
    """Whoever saves shared tensors once may keep the head's name; transformers ties either way."""
    model = save(build(layers=1, tied=True), tmp_path, tokenizer=False)
    wanted = open_checkpoint(model).read("model.embed_tokens.weight")
    rewrite_safetensors(tmp_path, lambda s: s.update({"lm_head.weight": s.pop("model.embed_tokens.weight")}))
    checkpoint = open_checkpoint(model)
    assert checkpoint.spec.tied_embeddings
    assert np.array_equal(checkpoint.read("model.embed_tokens.weight"), wanted)


def test_a_base_model_without_a_head_says_what_is_missing(tmp_path: Path) -> None:
    """An embedding model of untied weights cannot write text, and transformers would make a head up."""
    saved(tmp_path)
    rewrite_json(tmp_path / "config.json", lambda config: config.update(architectures=["LlamaModel"]))
    rewrite_safetensors(tmp_path, lambda state: state.pop("lm_head.weight"))
    message = refusal(tmp_path, CheckpointError)
    assert "lm_head.weight" in message
    assert "without its head" in message


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (8,)),
        ("model.layers.0.self_attn.rotary_emb.cos_cached", (1, 1, 256, 16)),
        ("model.layers.0.self_attn.rotary_emb.sin_cached", (256, 16)),
        ("model.rotary_emb.inv_freq", (8,)),
        ("rotary_emb.original_inv_freq", (8,)),
        ("module.model.layers.0.self_attn.rotary_emb.inv_freq", (8,)),
        ("model.layers.0.self_attn.bias", (1, 1, 256, 256)),
        ("model.layers.0.self_attn.masked_bias", ()),
        ("model.causal_mask", (256, 256)),
        ("model.position_ids", (1, 256)),
        ("model.layers.0.self_attn.q_proj._extra_state", (0,)),
    ],
)
@pytest.mark.parametrize("fmt", ["safetensors", "bin"])
def test_a_buffer_that_follows_from_the_configuration_is_passed_over(
    tmp_path: Path, name: str, shape: tuple[int, ...], fmt: Literal["safetensors", "bin"]
) -> None:
    """Rotary tables and masks are computed anew, whatever the files hold of them and in whatever type."""
    model = build(layers=1, vocab_size=260)
    save(model, tmp_path, fmt, tokenizer=False)
    for dtype in (np.float32, np.bool_, np.int64):
        tensors = {**model.tensors, name: np.ones(shape, dtype=dtype)}
        if fmt == "bin":
            save_bin(tensors, tmp_path / "pytorch_model.bin")
        else:
            write_tensors(tensors, tmp_path / "model.safetensors")
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.bias", (64,)),
        ("model.layers.0.self_attn.bias", (1, 64)),
        ("model.layers.0.rotary.weight", (8,)),
        ("encoder.embed_tokens.weight", (260, 64)),
        ("module.visual.blocks.weight", (4,)),
        ("v_head.summary.weight", (1, 64)),
    ],
)
def test_what_looks_like_a_buffer_and_is_none_is_refused_by_name(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    """A bias, a second embedding or another model's part would be left out."""
    saved(tmp_path)
    rewrite_safetensors(tmp_path, lambda state: state.update({name: np.ones(shape, dtype=np.float32)}))
    assert repr(name) in refusal(tmp_path, UnsupportedModel)


def test_one_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    """Which of the two counts cannot be known."""
    saved(tmp_path)
    rewrite_safetensors(tmp_path, lambda state: state.update({"norm.weight": np.ones(64, dtype=np.float32)}))
    assert "model.norm.weight" in refusal(tmp_path)
