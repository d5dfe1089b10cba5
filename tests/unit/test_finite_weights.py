"""Is a model whose own weights are not finite refused when it is sliced, the tensor, its file and the row named?

Does not cover: numbers that a node or the head computes wrongly (test_ranks.py, test_sampler.py).
"""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy as np
import pytest

from common.errors import CheckpointError, InputError
from common.weights.stored_numbers import narrowed
from coordinator.slicing.finite import row_not_finite
from coordinator.slicing.splitter import BUILDING
from tests.support.model_tensors import RandomModel
from tests.support.random_models import FORMATS, Format, build, save
from tests.support.sliced_models import slice_checkpoint, slice_model

PLACES = {
    "model.embed_tokens.weight": 259,
    "model.layers.0.input_layernorm.weight": 63,
    "model.layers.1.self_attn.q_proj.weight": 40,
    "model.layers.0.self_attn.k_proj.weight": 31,
    "model.layers.0.self_attn.v_proj.bias": 17,
    "model.layers.1.self_attn.o_proj.weight": 5,
    "model.layers.0.self_attn.o_proj.bias": 63,
    "model.layers.0.post_attention_layernorm.weight": 0,
    "model.layers.1.mlp.gate_proj.weight": 95,
    "model.layers.0.mlp.up_proj.bias": 50,
    "model.layers.1.mlp.down_proj.weight": 0,
    "model.layers.1.mlp.down_proj.bias": 1,
    "model.norm.weight": 7,
    "lm_head.weight": 100,
}
"""One row of every kind of tensor."""


def spoiled(name: str, row: int, value: float, **settings: object) -> RandomModel:
    """Return a model with every bias, of which one weight is `value`."""
    model = build(layers=2, vocab_size=260, attention_bias=True, mlp_bias=True, **settings)  # type: ignore[arg-type]
    rows = model.floats(name).copy()
    rows.reshape(rows.shape[0], -1)[row, -1] = value
    model.tensors[name] = narrowed(rows, model.config["dtype"])
    return model


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_number_is_named(tmp_path: Path, name: str, value: float) -> None:
    """In embeddings, norms, matrices and biases: file, tensor, row, and nothing is left of the slices."""
    with pytest.raises(CheckpointError) as caught:
        slice_model(tmp_path, model=spoiled(name, PLACES[name], value), world_size=2)
    message = str(caught.value)
    assert f"model.safetensors: '{name}' holds {value} in row {PLACES[name]}:" in message
    assert "\n" not in message
    assert not (tmp_path / "split" / BUILDING).exists()
    assert not list((tmp_path / "split").glob("*/*.safetensors"))


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_weights_are_looked_at_in_every_format(tmp_path: Path, fmt: Format, dtype: str) -> None:
    """Also where they become float32 in the slices."""
    name = "model.layers.1.mlp.up_proj.weight"
    model = save(spoiled(name, 9, math.nan, dtype=dtype), tmp_path, fmt)
    for wanted in ("float32", dtype):
        with pytest.raises(CheckpointError, match="holds nan in row 9") as caught:
            slice_checkpoint(model, tmp_path / "split", dtype=wanted)
        assert ("blk.1.ffn_up.weight" if fmt == "gguf" else name) in str(caught.value)


@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_0", "Q4_1", "Q5_0"])
@pytest.mark.parametrize("scale", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "blk.1.ffn_down.weight", "token_embd.weight"])
@pytest.mark.filterwarnings("error")
def test_a_block_of_a_gguf_with_a_scale_that_is_no_number_is_named(
    tmp_path: Path, quantization: str, scale: float, name: str
) -> None:
    """A scale stands for all the weights of its block; no warning of numpy gets out."""
    path = save(build(layers=2, vocab_size=260), tmp_path, "gguf", quantization=quantization)
    reader = gguf.GGUFReader(path, "r+")
    tensor = next(tensor for tensor in reader.tensors if tensor.name == name)
    tensor.data.reshape(-1)[:2] = np.array([scale], dtype=np.float16).view(np.uint8)
    reader.data.flush()
    del reader, tensor
    with pytest.raises(CheckpointError, match=f"model.gguf: '{name}' holds (nan|inf|-inf) in row"):
        slice_checkpoint(path, tmp_path / "split")


def test_a_tied_head_is_refused_as_the_embedding(tmp_path: Path) -> None:
    """One matrix, under the name that it has in the file."""
    model = spoiled("model.embed_tokens.weight", 3, math.nan, tied=True)
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight' holds nan in row 3"):
        slice_model(tmp_path, model=model)


@pytest.mark.parametrize(("dtype", "large"), [("float16", 60000.0), ("bfloat16", 3e38), ("float32", 3e38)])
def test_large_weights_are_no_damage_although_their_sum_is_infinite(dtype: str, large: float) -> None:
    """Only a value that is itself no finite number counts, of either sign."""
    floats = np.full((5, 70), large, dtype=np.float32)
    floats[0] = np.where(np.arange(70) % 2 == 0, large, -large)
    rows = narrowed(floats, dtype)
    assert row_not_finite(rows) is None
    for value in (math.nan, -math.nan, math.inf, -math.inf):
        floats[3, 69] = value
        rows = narrowed(floats, dtype)
        assert row_not_finite(rows) == 3
        assert row_not_finite(rows[3:, :69]) is None
        assert row_not_finite(rows[:, 69]) == 3
        assert row_not_finite(rows.T) == 69
        assert row_not_finite(rows[:0]) is None
    floats[1, 0] = -math.inf
    assert row_not_finite(narrowed(floats, dtype)) == 1


def test_a_weight_that_float16_cannot_hold_is_no_damage_but_another_dtype_s_matter(tmp_path: Path) -> None:
    """The model is whole: the line says which dtype to ask for."""
    with pytest.raises(InputError, match="float16 cannot hold"):
        slice_model(tmp_path, model=spoiled("model.layers.0.mlp.up_proj.weight", 0, 1e6), dtype="float16")


@pytest.mark.parametrize(("dtype", "other"), [("bfloat16", "use --weights-dtype float32"), ("float16", "bfloat16 or")])
def test_a_weight_that_a_smaller_dtype_cannot_hold_is_refused_when_it_is_cut(
    tmp_path: Path, dtype: str, other: str
) -> None:
    """Not found as damage when somebody asks; the model itself is whole."""
    model = save(spoiled("model.layers.1.mlp.up_proj.weight", 2, 3.4e38), tmp_path, "safetensors")
    with pytest.raises(InputError, match=f"that {dtype} cannot hold; .*{other}"):
        slice_checkpoint(model, tmp_path / "split", dtype=dtype)
