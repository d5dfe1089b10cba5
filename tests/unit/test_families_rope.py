"""Do the rotary parameters of a config.json mean what they mean to transformers, in both spellings?

Does not cover: the other keys (test_families.py), GGUF metadata (test_families_gguf.py), the maths of the kernels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import CheckpointError
from tests.support.configurations import QWEN, refusal, saved_spec, spec_of
from tests.support.random_models import FAMILIES, ROPES, build
from tests.support.transformers_answers import Theirs


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_both_spellings_of_the_configuration_mean_the_same(tmp_path: Path, family: str, rope: str) -> None:
    """What transformers 4 wrote and what 5 writes give one spec, for every family and rope scaling."""
    model = build(family, rope=ROPES[rope], theta=30000.0)
    spec = saved_spec(model, tmp_path, 5)
    assert spec == saved_spec(model, tmp_path, 4)
    assert spec.family == family
    assert spec.rope.rope_type == ROPES[rope]["rope_type"]
    assert spec.rope.theta == 30000.0


@pytest.mark.parametrize("rope", ["yarn", "yarn-mscale", "llama3", "linear", "dynamic", "default"])
def test_rope_parameters_arrive_with_transformers_defaults(tmp_path: Path, rope: str, theirs: Theirs) -> None:
    """Each parameter is the one given or the one that transformers would take."""
    model = build(rope=ROPES[rope])
    spec = saved_spec(model, tmp_path, 5)
    given = ROPES[rope]
    assert spec.rope.factor == given.get("factor", 1.0)
    assert spec.rope.original_position_count == given.get(
        "original_max_position_embeddings", 256 if rope == "dynamic" else 0
    )
    assert (spec.rope.beta_fast, spec.rope.beta_slow) == (given.get("beta_fast", 32.0), given.get("beta_slow", 1.0))
    assert (spec.rope.low_freq_factor, spec.rope.high_freq_factor) == (1.0, 4.0)
    assert spec.rope.truncate == given.get("truncate", True)
    if given["rope_type"] != "default":
        said = theirs.ask("frequencies", model.config, [1])
        assert spec.rope.attention_factor == pytest.approx(said["factor"], rel=1e-12)


@pytest.mark.parametrize(
    "parameters",
    [
        {"attention_factor": 1.7, "mscale": 2.0, "mscale_all_dim": 1.0},
        {"attention_factor": 0.0},
        {"mscale": 2.0},
        {"mscale": 0.707, "mscale_all_dim": 0.707},
        {"factor": None},
        {"factor": 1.0},
        {"beta_fast": 0, "beta_slow": None},
        {"truncate": None},
        {"truncate": False},
    ],
)
def test_yarn_reads_every_parameter_as_transformers_does(parameters: dict[str, Any], theirs: Theirs) -> None:
    """Given, absent, zero and null each have transformers' meaning."""
    scaling = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, **parameters}
    rope = spec_of(QWEN, rope_parameters={**scaling, "rope_theta": 5000.0}).rope
    config = build("qwen2", rope=scaling, theta=5000.0).config
    assert rope.attention_factor == pytest.approx(theirs.ask("frequencies", config, [1])["factor"], rel=1e-12)
    assert rope.factor == (parameters.get("factor", 8.0) or 256 / 64)
    assert (rope.beta_fast, rope.beta_slow) == (32.0, 1.0)
    assert rope.truncate == bool(config["rope_parameters"].get("truncate", True))


def test_the_context_grows_with_yarn_and_dynamic_scaling() -> None:
    """Files leave max_position_embeddings as trained, and stretch it by the factor."""
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    assert spec_of(QWEN, rope_scaling=yarn).max_position_count == 1024
    assert spec_of(QWEN, rope_scaling={"type": "dynamic", "factor": 2.0}).max_position_count == 512
    assert spec_of(QWEN, rope_scaling={"type": "linear", "factor": 2.0}).max_position_count == 256
    assert spec_of(QWEN, rope_scaling={**yarn, "original_max_position_embeddings": 32}).max_position_count == 256


def test_the_original_context_beside_the_rope_parameters_wins() -> None:
    """As in transformers: top level, then parameter, then the whole context."""
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert spec_of(QWEN, rope_scaling=llama3).rope.original_position_count == 256
    inner = {**llama3, "original_max_position_embeddings": 64}
    assert spec_of(QWEN, rope_scaling=inner).rope.original_position_count == 64
    outer = spec_of(QWEN, rope_scaling=inner, original_max_position_embeddings=32)
    assert outer.rope.original_position_count == 32


def test_the_base_among_the_rope_parameters_wins() -> None:
    """rope_parameters.rope_theta comes before rope_theta, and 10000 is the last resort."""
    assert spec_of(QWEN, rope_theta=5e5, rope_parameters={"rope_theta": 7e5}).rope.theta == 7e5
    assert spec_of(QWEN, rope_theta=5e5).rope.theta == 5e5
    assert spec_of(QWEN).rope.theta == 10000.0


@pytest.mark.parametrize(
    ("scaling", "same"),
    [
        ({"type": "yarn", "factor": 4.0, "finetuned": True}, ("yarn", 4.0)),
        ({"rope_type": "yarn", "factor": 4.0, "attn_factor": 1, "extrapolation_factor": 1.0}, ("yarn", 4.0)),
        ({"type": "linear", "factor": 2.0, "beta_fast": 3.0}, ("linear", 2.0)),
        ({"rope_type": "dynamic", "factor": 2.0, "low_freq_factor": 1.0}, ("dynamic", 2.0)),
        ({"rope_type": "linear", "factor": 2.0, "original_max_position_embeddings": 32}, ("linear", 2.0)),
        ({"rope_type": "default", "factor": 8.0, "short_factor": [1.0], "long_factor": [2.0]}, ("default", 1.0)),
        ({"type": "mrope", "rope_type": "default", "mrope_section": [16, 24, 24]}, ("default", 1.0)),
        ({"type": "linear", "rope_type": "dynamic", "factor": 2.0}, ("dynamic", 2.0)),
        ({"type": "linear", "factor": 2.0, "of_the_future": None, "switched_off": False}, ("linear", 2.0)),
    ],
)
@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
def test_a_rope_parameter_that_changes_nothing_is_no_hindrance(
    scaling: dict[str, Any], same: tuple[str, float], spelling: str, theirs: Theirs
) -> None:
    """What transformers passes over for this type, and `type` beside another `rope_type`, in both spellings."""
    spec = spec_of(QWEN, **{spelling: scaling})
    assert spec == spec_of(QWEN, rope_scaling={"type": same[0], "factor": same[1]})
    assert spec.rope.rope_type == theirs.ask("rope_parameters", {**QWEN, spelling: scaling})["rope_type"]


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 1e4}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "dynamic", "factor": 3.0}},
        {"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_type": "linear", "factor": 3.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 5e5}, "rope_theta": 5e5},
        {"rope_scaling": None, "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 7e5}},
        {"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 3.0}, "rope_theta": 7e5},
    ],
)
def test_of_two_spellings_in_one_file_the_one_counts_that_counts_for_transformers(
    changes: dict[str, Any], theirs: Theirs
) -> None:
    """rope_scaling replaces rope_parameters, unless it is empty."""
    rope, wanted = spec_of(QWEN, **changes).rope, theirs.ask("rope_parameters", {**QWEN, **changes})
    assert (rope.rope_type, rope.theta, rope.factor) == (
        wanted["rope_type"], wanted["rope_theta"], wanted.get("factor", 1.0),
    )  # fmt: skip


def test_a_base_that_transformers_would_lose_is_refused() -> None:
    """rope_scaling replaces rope_parameters with the base in it: 10000 was hardly meant."""
    assert "rope_theta" in refusal(
        QWEN, rope_scaling={"type": "linear", "factor": 2.0}, rope_parameters={"rope_theta": 1e6}
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"type": "longrope", "factor": 2.0, "short_factor": [1.0], "long_factor": [1.0]}},
        {"rope_scaling": {"type": "su", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "proportional", "factor": 2.0}},
        {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}},
    ],
)
def test_another_rope_type_is_refused_by_name(changes: dict[str, Any]) -> None:
    """longrope and the rest: the message says which type it is and which there are."""
    scaling = changes["rope_scaling"]
    message = refusal(QWEN, **changes)
    assert scaling.get("type", scaling.get("rope_type")) in message
    assert "llama3" in message


@pytest.mark.parametrize(
    ("scaling", "named"),
    [
        ({"type": "yarn", "factor": 2.0, "attn_factor": 1.5}, "attn_factor"),
        ({"type": "yarn", "factor": 2.0, "extrapolation_factor": True}, "extrapolation_factor"),
        ({"type": "dynamic", "factor": 2.0, "alpha": 1000.0}, "alpha"),
        ({"type": "mrope", "mrope_section": [1, 2]}, "mrope"),
        ({"type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"full_attention": {"rope_type": "default"}}, "full_attention"),
        ({"type": "linear", "factor": 0.5}, "factor"),
        ({"type": "linear", "factor": 1e300}, "factor"),
        ({"type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}, "high_freq_factor"),
    ],
)
def test_a_rope_parameter_that_is_not_implemented_is_refused_by_name(scaling: dict[str, Any], named: str) -> None:
    """Never ignored: a parameter that this type does not have, or out of its range."""
    assert named in refusal(QWEN, rope_scaling=scaling)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": True}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor"),
        ({"rope_scaling": {"rope_type": 7, "factor": 2.0}}, "rope_type"),
        ({"rope_scaling": {"type": 7, "factor": 2.0}}, "type"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": "yes"}}, "truncate"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 0}}, "original"),
    ],
)
def test_a_rope_parameter_of_a_wrong_kind_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    """Malformed is not the same as not implemented."""
    assert named in refusal(QWEN, CheckpointError, **changes)
