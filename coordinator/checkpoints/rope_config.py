"""Rotary embeddings as config.json describes them, in both spellings, as one RopeSpec.

Covers: transformers 4 (`rope_theta`, `rope_scaling` with `type` or `rope_type`) and 5 (`rope_parameters`); the
types default, linear, dynamic, yarn and llama3 with every parameter that transformers 5.24 computes.
Does not cover: GGUF metadata (gguf_metadata.py), the maths itself (shardnode's kernels).
Source: transformers 5.24 modeling_rope_utils.py; arXiv:2309.00071 (yarn), the Llama 3.1 model card (llama3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from common.errors import CheckpointError, UnsupportedModel
from common.model.model_spec import RopeSpec
from coordinator.checkpoints.config_keys import is_off
from coordinator.checkpoints.config_values import ConfigValues, shown

DEFAULT_THETA = 10000.0
MAX_FACTOR = 1 << 20
"""Far above any real stretch of the context."""

_EVERY_TYPE = frozenset({
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings",
})  # fmt: skip
"""Parameters that may stand beside any type; partial_rotary_factor must be 1."""
_OF_TYPE: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "yarn": frozenset({
        "factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
    }),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor"}),
}  # fmt: skip
_OF_OTHERS = frozenset({"short_factor", "long_factor"}).union(*_OF_TYPE.values())
"""Of some type: transformers passes them over for the others, where they are left from an earlier configuration."""
_HARMLESS = frozenset({
    "finetuned",  # of the first YaRN models' own code: was the model trained with it? Nothing follows.
    "mrope_section", "mrope_interleaved",  # positions of pictures; those of text are the same in every section
})  # fmt: skip
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {"attn_factor": (1,), "extrapolation_factor": (1,)}
"""What other programs read, with the values that change nothing."""


def rope_from_config(config: Mapping[str, Any], position_count: int) -> tuple[RopeSpec, int]:
    """Return the rotary embedding of a config.json and the longest context, in tokens, that it stretches to.

    Args: position_count: `max_position_embeddings`.
    Raises: UnsupportedModel: an unknown type or parameter, by name; CheckpointError: a value of a wrong kind.
    """
    parameters = _parameters(config)
    rope_type = _rope_type(parameters)
    _check_parameters(parameters, rope_type)
    theta = _theta(config, parameters)
    if rope_type == "default":
        return RopeSpec(theta=theta), position_count
    if rope_type == "linear":
        return RopeSpec(rope_type=rope_type, theta=theta, factor=_factor(parameters)), position_count
    if rope_type == "dynamic":
        factor = _factor(parameters)
        # The base grows beyond the context trained for: max_position_embeddings is that context, not the stretched one.
        rope = RopeSpec(rope_type=rope_type, theta=theta, factor=factor, original_position_count=position_count)
        return rope, int(position_count * factor)
    original = _original_position_count(config, parameters, position_count)
    if rope_type == "llama3":
        return _llama3(parameters, theta, original), position_count
    rope = _yarn(parameters, theta, original, position_count)
    return rope, max(position_count, int(original * rope.factor))


def _parameters(config: Mapping[str, Any]) -> ConfigValues:
    """Return the parameters of either spelling; the older one wins where both are, as in transformers."""
    for key in ("rope_scaling", "rope_parameters"):
        value = config.get(key)
        if not value:
            continue
        if not isinstance(value, dict):
            raise CheckpointError(f"config.json: '{key}' is {shown(value)}; an object is needed")
        nested = [name for name, inner in value.items() if isinstance(inner, dict)]
        if nested:
            raise UnsupportedModel(f"config.json: '{key}' differs by layer, in {shown(nested[0])}; that is not "
                                   "implemented")  # fmt: skip
        return ConfigValues(value, f"config.json: {key}")
    return ConfigValues({}, "config.json: rope_parameters")


def _rope_type(parameters: ConfigValues) -> str:
    """Return the type; `rope_type` wins over `type`, which Qwen2-VL's text models have as `mrope` beside `default`."""
    rope_type = parameters.text("rope_type", "") or parameters.text("type", "") or "default"
    if rope_type not in _OF_TYPE:
        known = ", ".join(_OF_TYPE)
        raise UnsupportedModel(f"{parameters.place}: rope type {shown(rope_type)} is not supported; supported: {known}")
    return rope_type


def _check_parameters(parameters: ConfigValues, rope_type: str) -> None:
    """Raise UnsupportedModel for a parameter that transformers does not know either."""
    for key, value in parameters.values.items():
        if key in _EVERY_TYPE or key in _OF_OTHERS or key in _OF_TYPE[rope_type] or is_off(value):
            continue
        if key not in _HARMLESS and (isinstance(value, bool) or value not in _NEUTRAL.get(key, ())):
            raise UnsupportedModel(f"{parameters.place}: {shown(key)} is {shown(value)}, which is not implemented for "
                                   f"rope type '{rope_type}'")  # fmt: skip
    if parameters.real("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModel(f"{parameters.place}: 'partial_rotary_factor' is not 1, which is not implemented")


def _theta(config: Mapping[str, Any], parameters: ConfigValues) -> float:
    """Return the base; the one among the parameters comes before the one beside them."""
    outer = ConfigValues(config, "config.json")
    theta = parameters.real("rope_theta", outer.real("rope_theta", DEFAULT_THETA))
    unread = config.get("rope_parameters")
    if parameters.values is not unread and isinstance(unread, dict):
        # transformers drops all of rope_parameters; a base that stands only there cannot have been meant to be dropped.
        lost = ConfigValues(unread, "config.json: rope_parameters").real("rope_theta", theta)
        if lost != theta:
            raise UnsupportedModel(f"config.json: 'rope_parameters' has rope_theta {lost}, but 'rope_scaling' replaces "
                                   f"it and means {theta}; remove one of the two")  # fmt: skip
    return theta


def _factor(parameters: ConfigValues) -> float:
    factor = parameters.real("factor")
    if not 1 <= factor <= MAX_FACTOR:
        raise UnsupportedModel(f"{parameters.place}: 'factor' is {factor}; from 1 to {MAX_FACTOR} is possible")
    return factor


def _original_position_count(config: Mapping[str, Any], parameters: ConfigValues, position_count: int) -> int:
    """Return the context trained for: a top-level entry wins, then the parameter, then the whole context."""
    inner = parameters.whole("original_max_position_embeddings", position_count)
    original = ConfigValues(config, "config.json").whole("original_max_position_embeddings", inner)
    if original < 1:
        raise CheckpointError(f"{parameters.place}: 'original_max_position_embeddings' is 0")
    return original


def _llama3(parameters: ConfigValues, theta: float, original: int) -> RopeSpec:
    low, high = parameters.real("low_freq_factor"), parameters.real("high_freq_factor")
    if not 0 < low < high:
        raise UnsupportedModel(f"{parameters.place}: 'high_freq_factor' {high} must be above 'low_freq_factor' {low}")
    return RopeSpec(
        rope_type="llama3",
        theta=theta,
        factor=_factor(parameters),
        original_position_count=original,
        low_freq_factor=low,
        high_freq_factor=high,
    )


def _yarn(parameters: ConfigValues, theta: float, original: int, position_count: int) -> RopeSpec:
    if "factor" in parameters.values and parameters.values["factor"] is None:
        factor = position_count / original
    else:
        factor = _factor(parameters)
    truncate = parameters.values.get("truncate", True)
    if truncate not in (True, False, None):
        raise CheckpointError(f"{parameters.place}: 'truncate' is {shown(truncate)}; true or false is needed")
    if theta <= 1:
        raise UnsupportedModel(f"{parameters.place}: yarn needs a rope_theta above 1, not {theta}")
    return RopeSpec(
        rope_type="yarn",
        theta=theta,
        factor=factor,
        original_position_count=original,
        beta_fast=_beta(parameters, "beta_fast", 32.0),
        beta_slow=_beta(parameters, "beta_slow", 1.0),
        attention_factor=_yarn_attention_factor(parameters, factor),
        truncate=bool(truncate),  # transformers takes an explicit null for false
    )


def _beta(parameters: ConfigValues, key: str, default: float) -> float:
    beta = parameters.real(key, default) or default  # transformers takes 0 for "not given"
    if beta < 0:
        raise UnsupportedModel(f"{parameters.place}: '{key}' is {beta}; it must be positive")
    return beta


def _yarn_attention_factor(parameters: ConfigValues, factor: float) -> float:
    """Return what cosine and sine are multiplied by: given, or from the two mscales, or from the factor."""
    if parameters.values.get("attention_factor") is not None:
        return parameters.real("attention_factor")
    mscale, mscale_all_dim = parameters.real("mscale", 0.0), parameters.real("mscale_all_dim", 0.0)
    if mscale and mscale_all_dim:
        return magnitude_scale(factor, mscale) / magnitude_scale(factor, mscale_all_dim)
    return magnitude_scale(factor)


def magnitude_scale(factor: float, mscale: float = 1.0) -> float:
    """Return yarn's scale of cosine and sine for a context stretched `factor` times (arXiv:2309.00071, 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
