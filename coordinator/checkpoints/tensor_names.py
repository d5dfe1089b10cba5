"""Which tensors a model has, under which Hugging Face name and with which shape; nothing else may be there.

Covers: the names of the Llama shape for any spec, and the check of a checkpoint against them.
Does not cover: values; GGUF's own names (gguf_reader.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from common.errors import CheckpointError, UnsupportedModel
from common.model.model_spec import ModelSpec
from coordinator.checkpoints.source_tensor import FLOAT_DTYPES, SourceTensor

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"

MATRIX = re.compile(
    r"model\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj\.weight|model\.embed_tokens\.weight|lm_head\.weight"
)
"""The matrices that slices are made of; their dtype is the checkpoint's."""

_RECOMPUTED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
"""Buffers that old transformers stored and that follow from config.json."""


def expected_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the model, by name; the head is among them even when it is tied."""
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (spec.vocab_size, spec.hidden_size),
        FINAL_NORM: (spec.hidden_size,),
        HEAD: (spec.vocab_size, spec.hidden_size),
    }
    of_layer = _layer_shapes(spec)
    for layer in range(spec.layer_count):
        for name, shape in of_layer.items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    return shapes


def _layer_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    hidden, ffn = spec.hidden_size, spec.ffn_size
    query, kv = spec.query_head_count * spec.head_size, spec.kv_head_count * spec.head_size
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("input_layernorm.weight", "post_attention_layernorm.weight"), (hidden,)
    )
    for name, rows, columns, bias in (
        ("self_attn.q_proj", query, hidden, spec.qkv_bias),
        ("self_attn.k_proj", kv, hidden, spec.qkv_bias),
        ("self_attn.v_proj", kv, hidden, spec.qkv_bias),
        ("self_attn.o_proj", hidden, query, spec.output_bias),
        ("mlp.gate_proj", ffn, hidden, spec.ffn_bias),
        ("mlp.up_proj", ffn, hidden, spec.ffn_bias),
        ("mlp.down_proj", hidden, ffn, spec.ffn_bias),
    ):
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)
    if spec.qk_norm:
        shapes["self_attn.q_norm.weight"] = shapes["self_attn.k_norm.weight"] = (spec.head_size,)
    return shapes


def check_tensors(spec: ModelSpec, tensors: Iterable[SourceTensor], place: str) -> dict[str, SourceTensor]:
    """Return the model's tensors by name, once all are known to be there, with their shapes, and no others.

    Args: place: the file or directory that errors name.
    Raises: CheckpointError: a tensor is missing, there twice, or of a wrong shape or dtype.
        UnsupportedModel: a tensor that the spec has no place for, and that would therefore be left out.
    """
    expected = expected_shapes(spec)
    found: dict[str, SourceTensor] = {}
    for tensor in tensors:
        if tensor.name in found:
            raise CheckpointError(f"{tensor.path}: {tensor.label} is also in {found[tensor.name].path.name}")
        if tensor.name in expected:
            _check_tensor(tensor, expected[tensor.name])
            found[tensor.name] = tensor
        elif not _RECOMPUTED.fullmatch(tensor.name):
            raise UnsupportedModel(f"{tensor.path}: the tensor {tensor.label} has no place in a "
                                   f"{spec.family} model of {spec.layer_count} layers")  # fmt: skip
    _check_complete(spec, expected, found, place)
    return found


def _check_tensor(tensor: SourceTensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise CheckpointError(f"{tensor.path}: {tensor.label} has shape {list(tensor.shape)}; "
                              f"the configuration asks for {list(shape)}")  # fmt: skip
    if tensor.dtype not in FLOAT_DTYPES:
        raise CheckpointError(f"{tensor.path}: {tensor.label} is stored as {tensor.encoding}; "
                              f"{', '.join(FLOAT_DTYPES.values())} can be read")  # fmt: skip


def _check_complete(
    spec: ModelSpec, expected: Mapping[str, object], found: Mapping[str, SourceTensor], place: str
) -> None:
    missing = [name for name in expected if name not in found and not (name == HEAD and spec.tied_embeddings)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"{place}: the tensor '{missing[0]}'{more} is missing")
