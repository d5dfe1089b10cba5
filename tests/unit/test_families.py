"""Does a config.json become the maths that transformers makes of it, or a refusal that names the key?

Does not cover: what it leaves out (test_families_defaults.py), rotary parameters (test_families_rope.py), GGUF metadata
(test_families_gguf.py), tensors (test_checkpoints.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import CheckpointError, ModelError, UnsupportedModel
from coordinator.checkpoints.families import FAMILIES, family_of_architecture, family_of_gguf
from tests.support.configurations import QWEN, SMOL, refusal, saved_spec, spec_of
from tests.support.random_models import build
from tests.support.transformers_answers import Theirs


def test_a_configuration_of_the_wild_is_read_whole() -> None:
    """SmolLM2's: every number arrives, and its odd but harmless keys are no hindrance."""
    spec = spec_of(SMOL)
    assert (spec.family, spec.hidden_size, spec.ffn_size, spec.layer_count) == ("llama", 576, 1536, 30)
    assert (spec.query_head_count, spec.kv_head_count, spec.head_size) == (9, 3, 64)
    assert (spec.vocab_size, spec.max_position_count, spec.norm_epsilon) == (49152, 8192, 1e-5)
    assert (spec.rope.rope_type, spec.rope.theta, spec.activation) == ("default", 100000.0, "silu")
    assert spec.tied_embeddings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("rope_interleaved", True),
        ("partial_rotary_factor", 0.5),
        ("pretraining_tp", 2),
        ("attention_multiplier", 0.015),
        ("logits_scaling", 8.0),
        ("final_logit_softcapping", 30.0),
        ("attn_logit_softcapping", 50.0),
        ("num_local_experts", 8),
        ("num_experts", True),
        ("mlp_bias_of_the_future", True),
        ("auto_map", {"AutoModelForCausalLM": "modeling_yi.YiForCausalLM"}),
        ("qk_layernorm", True),
        ("hidden_activation", "gelu"),
        ("repetition_penalty", 1.1),
        ("something_new", 0.0),
        ("use_sliding_window", True),
        ("sliding_window", 4096),
    ],
)
def test_a_key_that_changes_the_maths_is_refused_by_name(key: str, value: object) -> None:
    """Known or not: what is not computed is never ignored."""
    message = refusal(SMOL, **{key: value})
    assert key in message or (key == "use_sliding_window" and "sliding_window" in message)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantization_config", None),
        ("partial_rotary_factor", 1.0),
        ("pretraining_tp", 1),
        ("attention_multiplier", 1),
        ("num_experts", 0),
        ("repetition_penalty", 1.0),
        ("temperature", 0.6),
        ("something_new", None),
        ("something_new", False),
        ("something_new", ""),
        ("pruned_heads", {}),
        ("sliding_window", None),
        ("attention_dropout", 0.1),
    ],
)
def test_a_key_that_changes_nothing_is_no_hindrance(key: str, value: object) -> None:
    """Neutral values, null and false leave the spec as it is."""
    assert spec_of(SMOL, **{key: value}) == spec_of(SMOL)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": 576.5}, "hidden_size"),
        ({"num_hidden_layers": "30"}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_attention_heads": 9.0}, "num_attention_heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"intermediate_size": [1536, 1536]}, "intermediate_size"),
        ({"max_position_embeddings": -1}, "max_position_embeddings"),
        ({"vocab_size": 10**400}, "vocab_size"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"attention_bias": 1}, "attention_bias"),
        ({"hidden_act": 3}, "hidden_act"),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused_by_its_key(changes: dict[str, Any], named: str) -> None:
    """config.json comes from outside: types and ranges are checked, one by one."""
    message = refusal(SMOL, CheckpointError, **changes)
    assert named in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_act": "relu"}, "relu"),
        ({"num_key_value_heads": 2}, "9 query heads"),
        ({"hidden_size": 577}, "577"),
        ({"head_dim": 63}, "63"),
        ({"num_hidden_layers": 1 << 30}, "num_hidden_layers"),
        ({"vocab_size": 1 << 40}, "vocab_size"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, Any], named: str) -> None:
    """Numbers that do not fit together, or fit no machine."""
    assert named in refusal(SMOL, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"architectures": ["Qwen2MoeForCausalLM"]},
        {"architectures": None, "model_type": "gemma2"},
        {"architectures": ["A\nB"]},
    ],
)
def test_another_architecture_is_refused_with_those_there_are(changes: dict[str, Any]) -> None:
    """The message names what was asked for and what can be had."""
    message = refusal(SMOL, **changes)
    name = (changes["architectures"] or [changes.get("model_type")])[0]
    assert repr(name) in message
    for family in FAMILIES:
        assert family.architecture in message


def test_architecture_and_model_type_must_agree() -> None:
    """transformers goes by the one, other programs by the other."""
    assert "model_type" in refusal(SMOL, model_type="mistral")
    assert "architectures" in refusal(SMOL, architectures=["LlamaForCausalLM", "MistralForCausalLM"])
    assert spec_of(SMOL, model_type=...) == spec_of(SMOL, architectures=...) == spec_of(SMOL)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("silu", "silu"),
        ("swish", "silu"),
        ("gelu", "gelu"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("gelu_new", "gelu_tanh"),
    ],
)
def test_activations_have_one_name_each(name: str, wanted: str) -> None:
    """Several spellings of transformers are one function."""
    assert spec_of(SMOL, hidden_act=name).activation == wanted


@pytest.mark.parametrize(
    ("family", "changes", "qkv", "output", "ffn", "qk_norm"),
    [
        ("llama", {}, False, False, False, False),
        ("llama", {"attention_bias": True}, True, True, False, False),
        ("llama", {"mlp_bias": True}, False, False, True, False),
        ("mistral", {}, False, False, False, False),
        ("qwen2", {}, True, False, False, False),
        ("qwen3", {}, False, False, False, True),
        ("qwen3", {"attention_bias": True}, True, True, False, True),
    ],
)
def test_biases_and_norms_follow_the_family(
    tmp_path: Path,
    family: str,
    changes: dict[str, Any],
    qkv: bool,
    output: bool,
    ffn: bool,
    qk_norm: bool,
    theirs: Theirs,
) -> None:
    """Where a family has biases is its own rule; the model that transformers builds agrees."""
    model = build(family, **changes)
    spec = saved_spec(model, tmp_path, 5)
    assert (spec.qkv_bias, spec.output_bias, spec.ffn_bias, spec.qk_norm) == (qkv, output, ffn, qk_norm)
    names = set(theirs.ask("tensor_names", model.config))
    assert names == set(model.tensors)
    assert ("model.layers.0.self_attn.q_proj.bias" in names) == qkv
    assert ("model.layers.0.self_attn.o_proj.bias" in names) == output
    assert ("model.layers.0.mlp.down_proj.bias" in names) == ffn


def test_a_bias_key_of_another_family_is_refused() -> None:
    """Mistral has no attention_bias: true must mean something else."""
    mistral = {**SMOL, "architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    assert "attention_bias" in refusal(mistral, attention_bias=True)


def test_mistral_slides_on_every_layer_unless_told_not_to() -> None:
    """A number is the window, null is none, nothing is 4096."""
    mistral = {**QWEN, "architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    assert spec_of(mistral).sliding_windows == (32, 32, 32, 32)
    assert spec_of(mistral, sliding_window=None).sliding_windows == (0, 0, 0, 0)
    assert spec_of(mistral, sliding_window=...).sliding_windows == (4096,) * 4
    assert "sliding_window" in refusal(mistral, CheckpointError, sliding_window=0)
    full = ["full_attention"] * 4
    assert "layer_types" in refusal(mistral, layer_types=full)
    assert spec_of(mistral, layer_types=full, sliding_window=None).sliding_windows == (0, 0, 0, 0)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_sliding_window": True, "max_window_layers": 2},
        {"use_sliding_window": True, "max_window_layers": 0},
        {"use_sliding_window": True},
        {"use_sliding_window": False, "max_window_layers": 0},
        {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
        {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"] * 2},
    ],
)
def test_qwen_slides_where_transformers_slides(
    tmp_path: Path, family: str, changes: dict[str, Any], theirs: Theirs
) -> None:
    """use_sliding_window, max_window_layers and layer_types together say which layers have a window."""
    model = build(family, layers=4, **{"sliding_window": 32, **changes})
    settings = {**model.config, "sliding_window": 32, **changes}
    if "layer_types" not in changes:
        del settings["layer_types"]
    said = theirs.ask("configuration", settings)
    wanted = tuple(32 if kind == "sliding_attention" else 0 for kind in said["layer_types"])
    assert saved_spec(model, tmp_path, 5).sliding_windows == wanted
    name = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}[family]
    assert spec_of({**QWEN, "architectures": [name], "model_type": family}, **changes).sliding_windows == wanted


@pytest.mark.parametrize(
    ("layer_types", "kind"),
    [
        (["full_attention"] * 3, CheckpointError),
        ("full_attention", CheckpointError),
        (["chunked_attention"] * 4, UnsupportedModel),
        ([["full_attention"]] * 4, UnsupportedModel),
        (["sliding_attention"] * 4, UnsupportedModel),
    ],
)
def test_layer_types_that_mean_nothing_are_refused(layer_types: object, kind: type[ModelError]) -> None:
    """Of a wrong length, of another kind of attention, or sliding without a window."""
    assert "layer_types" in refusal(QWEN, kind, layer_types=layer_types)


def test_a_llama_made_of_a_qwen_keeps_keys_that_are_switched_off() -> None:
    """use_sliding_window: false says that the window beside it does not count."""
    spec = spec_of(SMOL, sliding_window=4096, use_sliding_window=False, max_window_layers=21)
    assert spec == spec_of(SMOL)


def test_families_have_names_of_their_own() -> None:
    """An architecture leads to one family and back."""
    for family in FAMILIES:
        assert family_of_architecture(family.architecture) is family
        if family.gguf_architecture:
            assert family_of_gguf(family.gguf_architecture) is family
