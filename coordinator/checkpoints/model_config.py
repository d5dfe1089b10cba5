"""From config.json to the ModelSpec, refusing by name every key that asks for other maths.

Covers: sizes, biases, norms, sliding windows of the families in families.py, in the spellings of transformers 4 and 5.
Does not cover: rotary parameters (rope_config.py), which keys are known (config_keys.py), tokens and templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.errors import CheckpointError, UnsupportedModel
from common.model.model_spec import MAX_LAYER_COUNT, ModelSpec
from coordinator.checkpoints.config_keys import COMPUTED, check_config_keys
from coordinator.checkpoints.config_values import ConfigValues, shown
from coordinator.checkpoints.families import FAMILIES, Family, family_of_architecture
from coordinator.checkpoints.rope_config import rope_from_config

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
}
"""config.json's `hidden_act` and the spec's name for it."""


def spec_from_config(config: Mapping[str, Any]) -> ModelSpec:
    """Return the model that a config.json describes.

    Raises: UnsupportedModel: another architecture, or a key that is not implemented; the message names it.
        CheckpointError: a key is missing or of a wrong type.
    """
    family = _family(config)
    bias_keys = {rule for rule in (family.qkv_bias, family.output_bias, family.ffn_bias) if isinstance(rule, str)}
    check_config_keys(config, COMPUTED | bias_keys)
    left_out = {key: size for key, size in family.default_sizes.items() if config.get(key) is None}
    values = ConfigValues({**config, **left_out}, "config.json")
    hidden_size = values.whole("hidden_size")
    query_head_count = _positive(values, "num_attention_heads")
    layer_count = _layer_count(values)
    rope, max_position_count = rope_from_config(config, _positive(values, "max_position_embeddings"))
    return ModelSpec(
        family=family.name,
        hidden_size=hidden_size,
        layer_count=layer_count,
        query_head_count=query_head_count,
        kv_head_count=_kv_head_count(values, family, query_head_count),
        head_size=_head_size(values, family, hidden_size, query_head_count),
        ffn_size=values.whole("intermediate_size"),
        vocab_size=values.whole("vocab_size"),
        max_position_count=max_position_count,
        norm_epsilon=_norm_epsilon(values),
        rope=rope,
        activation=_activation(values),
        qkv_bias=_bias(values, family.qkv_bias),
        output_bias=_bias(values, family.output_bias),
        ffn_bias=_bias(values, family.ffn_bias),
        qk_norm=family.qk_norm,
        sliding_windows=_sliding_windows(values, family, layer_count),
        tied_embeddings=values.flag("tie_word_embeddings", False),
    )


def _family(config: Mapping[str, Any]) -> Family:
    """Return the family that both `architectures` and `model_type` name; either may be missing."""
    model_type = config.get("model_type")
    architectures = config.get("architectures")
    if not architectures:
        by_type = {family.name: family.architecture for family in FAMILIES}
        return family_of_architecture(by_type.get(str(model_type), str(model_type)))
    if not isinstance(architectures, list) or len(architectures) != 1:
        raise UnsupportedModel(f"config.json: 'architectures' is {shown(architectures)}; one name is needed")
    family = family_of_architecture(str(architectures[0]))
    if model_type is not None and model_type != family.name:
        raise UnsupportedModel(f"config.json: 'model_type' is {shown(model_type)}, but {family.architecture} is "
                               f"'{family.name}'")  # fmt: skip
    return family


def _positive(values: ConfigValues, key: str) -> int:
    value = values.whole(key)
    if value < 1:
        raise CheckpointError(f"{values.place}: '{key}' is 0")
    return value


def _layer_count(values: ConfigValues) -> int:
    layer_count = _positive(values, "num_hidden_layers")
    if layer_count > MAX_LAYER_COUNT:
        raise UnsupportedModel(
            f"{values.place}: 'num_hidden_layers' is {layer_count}; at most {MAX_LAYER_COUNT} can be"
        )
    return layer_count


def _norm_epsilon(values: ConfigValues) -> float:
    epsilon = values.real("rms_norm_eps", 1e-6)
    if not 0 <= epsilon < 1:
        raise CheckpointError(f"{values.place}: 'rms_norm_eps' is {epsilon}; from 0 to 1 makes sense")
    return epsilon


def _kv_head_count(values: ConfigValues, family: Family, query_head_count: int) -> int:
    if values.values.get("num_key_value_heads") is not None:
        return _positive(values, "num_key_value_heads")
    if "num_key_value_heads" in values.values or family.default_kv_head_count is None:
        return query_head_count
    return family.default_kv_head_count


def _head_size(values: ConfigValues, family: Family, hidden_size: int, query_head_count: int) -> int:
    if values.values.get("head_dim") is not None:
        return values.whole("head_dim")
    if "head_dim" not in values.values and family.default_head_size is not None:
        return family.default_head_size
    if hidden_size % query_head_count:
        raise UnsupportedModel(f"config.json: hidden_size {hidden_size} is not a multiple of {query_head_count} heads, "
                               "and there is no head_dim")  # fmt: skip
    return hidden_size // query_head_count


def _activation(values: ConfigValues) -> str:
    name = values.text("hidden_act", "silu")
    if name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise UnsupportedModel(f"config.json: 'hidden_act' {shown(name)} is not supported; supported: {known}")
    return _ACTIVATIONS[name]


def _bias(values: ConfigValues, rule: bool | str) -> bool:
    return values.flag(rule, False) if isinstance(rule, str) else rule


def _sliding_windows(values: ConfigValues, family: Family, layer_count: int) -> tuple[int, ...]:
    """Return per layer how many positions a token sees (0: all), by the family's rule."""
    layer_types = values.values.get("layer_types")
    _check_layer_types(layer_types, layer_count)
    window = _window_of(values, family)
    if family.window_rule == "by_layer":
        if layer_types is None:
            full_layer_count = values.whole("max_window_layers", 28)
            sliding = [layer >= full_layer_count for layer in range(layer_count)]
        else:
            sliding = [layer_type == "sliding_attention" for layer_type in layer_types]
            if any(sliding) and not window:
                raise UnsupportedModel("config.json: 'layer_types' has sliding_attention, but 'use_sliding_window' "
                                       "and 'sliding_window' set no window")  # fmt: skip
        return tuple(window if slides else 0 for slides in sliding)
    uniform = "sliding_attention" if window else "full_attention"
    if layer_types is not None and any(layer_type != uniform for layer_type in layer_types):
        raise UnsupportedModel(f"config.json: 'layer_types' other than {uniform} throughout is not implemented "
                               f"for {family.name}")  # fmt: skip
    return (window,) * layer_count


def _check_layer_types(layer_types: Any, layer_count: int) -> None:
    if layer_types is None:
        return
    if not isinstance(layer_types, list) or len(layer_types) != layer_count:
        raise CheckpointError(f"config.json: 'layer_types' needs one entry for each of {layer_count} layers")
    for layer_type in layer_types:
        if layer_type not in ("full_attention", "sliding_attention"):
            raise UnsupportedModel(f"config.json: 'layer_types' has {shown(layer_type)}, which is not implemented")


def _window_of(values: ConfigValues, family: Family) -> int:
    """Return the window in positions, 0 for none."""
    if family.window_rule == "by_layer" and not values.flag("use_sliding_window", False):
        return 0
    if "sliding_window" in values.values and values.values["sliding_window"] is None:
        return 0
    window = values.whole("sliding_window", family.default_sliding_window or 0)
    if family.window_rule == "none":
        # An explicit use_sliding_window: false says that the other keys are left over from another family.
        if values.flag("use_sliding_window", bool(window)):
            raise UnsupportedModel(f"config.json: 'sliding_window' is not implemented for {family.name}")
        return 0
    if "sliding_window" in values.values and window < 1:
        raise CheckpointError("config.json: 'sliding_window' is 0; null switches it off")
    return window
