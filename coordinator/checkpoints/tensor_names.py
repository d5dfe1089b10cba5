"""Which tensors a model has, under which Hugging Face name and with which shape; nothing else may be there.

Covers: the names of the Llama shape for any spec, and the check of a checkpoint against them.
Does not cover: values; other names of the same tensors (stored_names.py, gguf_reader.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.errors import CheckpointError, UnsupportedModel
from common.model.model_spec import ModelSpec
from common.weights.stored_numbers import NUMPY_DTYPES
from coordinator.checkpoints.source_tensor import SourceTensor
from coordinator.checkpoints.stored_names import is_buffer, transformers_names
from coordinator.checkpoints.weight_files import WeightFiles

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"

MATRIX = re.compile(
    r"model\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj\.weight|model\.embed_tokens\.weight|lm_head\.weight"
)
"""The matrices that slices are made of; their dtype is the checkpoint's."""


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


def check_stored_tensors(
    spec: ModelSpec, stored: Sequence[SourceTensor], files: WeightFiles
) -> dict[str, SourceTensor]:
    """Do as check_tensors for the files of a Hugging Face directory, whatever they call the tensors."""
    names = transformers_names(tensor.stored_name for tensor in stored)
    promised = {name: files.directory / files.index[old] for old, name in transformers_names(files.index).items()}
    tensors = [replace(tensor, name=names[tensor.stored_name]) for tensor in stored]
    return check_tensors(spec, tensors, str(files.directory), promised)


def check_tensors(
    spec: ModelSpec, tensors: Iterable[SourceTensor], place: str, promised: Mapping[str, Path] | None = None
) -> dict[str, SourceTensor]:
    """Return the model's tensors by name, once all are known to be there, with their shapes, and no others.

    Args: place: the file or directory that errors name. promised: by name, the file that an index says a tensor is in.
    Raises: CheckpointError: a tensor is missing, there twice, or of a wrong shape or dtype.
        UnsupportedModel: a tensor that the spec has no place for, and that would therefore be left out.
    """
    expected = expected_shapes(spec)
    found: dict[str, SourceTensor] = {}
    for tensor in tensors:
        if tensor.name in found:
            other = found[tensor.name]
            name = "" if other.label == tensor.label else f", as {other.label}"
            raise CheckpointError(f"{tensor.path}: {tensor.label} is also in {other.path.name}{name}")
        if tensor.name in expected:
            _check_tensor(tensor, expected[tensor.name])
            found[tensor.name] = tensor
        elif not is_buffer(tensor.name, tensor.shape):
            raise UnsupportedModel(f"{tensor.path}: the tensor {tensor.label} has no place in a "
                                   f"{spec.family} model of {spec.layer_count} layers")  # fmt: skip
    if spec.tied_embeddings and EMBEDDING not in found and HEAD in found:
        found[EMBEDDING] = replace(found.pop(HEAD), name=EMBEDDING)  # one matrix, kept under its other name
    _check_complete(spec, expected, found, place, promised or {})
    return found


def _check_tensor(tensor: SourceTensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise CheckpointError(f"{tensor.path}: {tensor.label} has shape {list(tensor.shape)}; "
                              f"the configuration asks for {list(shape)}")  # fmt: skip
    if tensor.dtype not in NUMPY_DTYPES:
        raise CheckpointError(f"{tensor.path}: {tensor.label} is stored as {tensor.encoding}; "
                              f"{', '.join(NUMPY_DTYPES)} can be read")  # fmt: skip


def _check_complete(
    spec: ModelSpec,
    expected: Mapping[str, object],
    found: Mapping[str, SourceTensor],
    place: str,
    promised: Mapping[str, Path],
) -> None:
    missing = [name for name in expected if name not in found and not (name == HEAD and spec.tied_embeddings)]
    if not missing:
        return
    if missing[0] in promised:
        raise CheckpointError(f"{promised[missing[0]]}: the index promises '{missing[0]}', but it is not there; "
                              "download it again")  # fmt: skip
    if missing == [HEAD]:
        raise CheckpointError(f"{place}: the tensor '{HEAD}' is missing, and config.json ties no embeddings: a model "
                              "without its head, such as those for embeddings, writes no text")  # fmt: skip
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    raise CheckpointError(f"{place}: the tensor '{missing[0]}'{more} is missing")
