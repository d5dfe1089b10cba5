"""From GGUF metadata to the ModelSpec, refusing by name every key that asks for other maths.

Covers: the architectures of families.py; rotary scaling linear and yarn, and factors per frequency.
Does not cover: the file's header (gguf_file.py), tokens and chat templates.
Source: the GGUF specification's key list; how llama.cpp reads rope.scaling.* and rope_freqs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.errors import CheckpointError, UnsupportedModel
from common.model.model_spec import ModelSpec, RopeSpec
from coordinator.checkpoints.config_values import ConfigValues, shown
from coordinator.checkpoints.families import Family, family_of_gguf
from coordinator.checkpoints.rope_config import DEFAULT_THETA, MAX_FACTOR, magnitude_scale

_COMPUTED = frozenset({
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "attention.sliding_window",
    "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
})  # fmt: skip
"""Keys below the architecture's name."""
_HARMLESS = frozenset({"rope.scaling.finetuned"})
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (-1, 1),
}
"""Keys that change nothing with these values."""
_OFF: tuple[Any, ...] = (0, False, "", [])
"""Values that change nothing for any other key."""


def family_from_gguf(metadata: Mapping[str, Any]) -> Family:
    """Return the family that `general.architecture` names.

    Raises: UnsupportedModel: not a supported architecture, or an adapter.
    """
    values = ConfigValues(metadata, "GGUF metadata")
    family = family_of_gguf(values.text("general.architecture"))
    kind = values.text("general.type", "model")
    if kind != "model":
        raise UnsupportedModel(
            f"GGUF metadata: 'general.type' is {shown(kind)}; only a model can be run"
            + (", and an adapter has to be merged into one first" if kind == "adapter" else "")
        )
    return family


def spec_from_gguf(
    family: Family,
    metadata: Mapping[str, Any],
    names: frozenset[str],
    frequency_factors: tuple[float, ...],
    embedding_row_count: int = 0,
) -> ModelSpec:
    """Return the model that a GGUF header describes.

    Args: names: the tensors there are, under Hugging Face names: biases and a head of its own show in them alone.
        frequency_factors: the file's `rope_freqs`; empty when there is none.
        embedding_row_count: of the embedding matrix; 0 where it is not known.
    Raises: UnsupportedModel: a key that is not implemented, by name. CheckpointError: a key is missing or malformed.
    """
    prefix = f"{family.gguf_architecture}."
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    _check_keys(own, prefix)
    values = ConfigValues(own, f"GGUF metadata: {prefix}*")
    layer_count, hidden_size = values.whole("block_count"), values.whole("embedding_length")
    query_head_count = _per_layer(values, "attention.head_count")
    head_size = _head_size(values, hidden_size, query_head_count)
    context = values.whole("context_length")
    _check_window(values, context)
    rope = _rope(values, frequency_factors, context)
    stretched = int(rope.original_position_count * rope.factor) if rope.rope_type == "yarn" else 0
    layer = "model.layers.0."
    return ModelSpec(
        family=family.name,
        hidden_size=hidden_size,
        layer_count=layer_count,
        query_head_count=query_head_count,
        kv_head_count=_per_layer(values, "attention.head_count_kv", query_head_count),
        head_size=head_size,
        ffn_size=_per_layer(values, "feed_forward_length"),
        vocab_size=_vocab_size(values, metadata, embedding_row_count),
        max_position_count=max(context, stretched),
        norm_epsilon=values.real("attention.layer_norm_rms_epsilon"),
        rope=rope,
        qkv_bias=_bias(family.qkv_bias, f"{layer}self_attn.q_proj.bias" in names),
        output_bias=_bias(family.output_bias, f"{layer}self_attn.o_proj.bias" in names),
        ffn_bias=_bias(family.ffn_bias, f"{layer}mlp.gate_proj.bias" in names),
        qk_norm=family.qk_norm,
        tied_embeddings="lm_head.weight" not in names,
    )


def _check_keys(own: Mapping[str, Any], prefix: str) -> None:
    for key, value in own.items():
        if key in _COMPUTED or key in _HARMLESS:
            continue
        if value not in _NEUTRAL.get(key, _OFF):
            raise UnsupportedModel(f"GGUF metadata: {shown(prefix + key)} is {shown(value)}, which is not implemented")


def _per_layer(values: ConfigValues, key: str, default: int | None = None) -> int:
    """Return a number of at least 1 that may be given as one per layer, if they are all the same."""
    value = values.values.get(key)
    if isinstance(value, list):
        if not value or any(item != value[0] for item in value):
            raise UnsupportedModel(f"{values.place}: '{key}' differs by layer, which is not implemented")
        values = ConfigValues({key: value[0]}, values.place)
    count = values.whole(key, default)
    if count < 1:
        raise CheckpointError(f"{values.place}: '{key}' is 0")
    return count


def _head_size(values: ConfigValues, hidden_size: int, query_head_count: int) -> int:
    """Return the size of a head, which the rotary embedding must cover in full."""
    head_size = values.whole("attention.key_length", hidden_size // query_head_count)
    for key in ("attention.value_length", "rope.dimension_count"):
        size = values.whole(key, head_size)
        if size != head_size:
            raise UnsupportedModel(f"{values.place}: '{key}' is {size} for heads of {head_size}, which is not "
                                   "implemented")  # fmt: skip
    return head_size


def _check_window(values: ConfigValues, context: int) -> None:
    """Refuse a sliding window that would be felt: GGUF does not say on which layers it is."""
    window = values.whole("attention.sliding_window", 0)
    if 0 < window < context:
        raise UnsupportedModel(f"{values.place}: 'attention.sliding_window' is {window}, which is not implemented "
                               "for GGUF; use the model's safetensors files")  # fmt: skip


def _vocab_size(values: ConfigValues, metadata: Mapping[str, Any], embedding_row_count: int) -> int:
    """Return vocab_size or the number of tokens listed; where they disagree, the one that the embedding bears out."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    token_count = len(tokens) if isinstance(tokens, list) else None
    if token_count is not None and token_count == embedding_row_count:
        return token_count
    return values.whole("vocab_size", token_count)


def _bias(rule: bool | str, there: bool) -> bool:
    return there if isinstance(rule, str) else rule


def _rope(values: ConfigValues, frequency_factors: tuple[float, ...], context: int) -> RopeSpec:
    theta = values.real("rope.freq_base", DEFAULT_THETA)
    factor = values.real("rope.scaling.factor", 0.0) or values.real("rope.scale_linear", 0.0) or 1.0
    if not 1 <= factor <= MAX_FACTOR:
        raise UnsupportedModel(f"{values.place}: 'rope.scaling.factor' is {factor}; from 1 to {MAX_FACTOR} is possible")
    scaling = values.text("rope.scaling.type", "linear" if factor != 1 else "none")
    if frequency_factors:
        if scaling != "none" and factor != 1:
            raise UnsupportedModel(f"{values.place}: 'rope.scaling.type' {scaling} together with rope_freqs is not "
                                   "implemented")  # fmt: skip
        return RopeSpec(rope_type="factors", theta=theta, frequency_factors=frequency_factors)
    if scaling == "none" or (scaling == "linear" and factor == 1):
        return RopeSpec(theta=theta)
    if scaling == "linear":
        return RopeSpec(rope_type="linear", theta=theta, factor=factor)
    if scaling != "yarn":
        raise UnsupportedModel(f"{values.place}: 'rope.scaling.type' {shown(scaling)} is not supported; "
                               "supported: none, linear, yarn")  # fmt: skip
    if theta <= 1:
        raise UnsupportedModel(f"{values.place}: yarn needs a 'rope.freq_base' above 1, not {theta}")
    return RopeSpec(
        rope_type="yarn",
        theta=theta,
        factor=factor,
        original_position_count=values.whole("rope.scaling.original_context_length", context),
        beta_fast=_beta(values, "rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=_beta(values, "rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=magnitude_scale(factor),
    )


def _beta(values: ConfigValues, key: str, default: float) -> float:
    beta = values.real(key, default)
    if beta <= 0:
        raise UnsupportedModel(f"{values.place}: '{key}' is {beta}; it must be positive")
    return beta
