"""Which keys of config.json are computed, which cannot matter, and which must be switched off.

A key in none of these tables is refused unless its value is null, false or empty: it may change the maths.
Does not cover: what the computed keys mean (model_config.py, rope_config.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.errors import UnsupportedModel
from coordinator.checkpoints.config_values import shown

COMPUTED = frozenset({
    "architectures", "model_type",
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "vocab_size", "max_position_embeddings", "rms_norm_eps", "hidden_act",
    "tie_word_embeddings", "sliding_window", "use_sliding_window", "max_window_layers", "layer_types",
    "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "original_max_position_embeddings",
})  # fmt: skip
"""Of every family; `attention_bias` and `mlp_bias` are added for the families whose bias rules name them."""

HARMLESS = frozenset({
    # Provenance and storage.
    "_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "transformers.js_config",
    "unsloth_version", "unsloth_fixed", "is_llama_config", "license", "tokenizer_class",
    # Tokens: the tokenizer's side reads them.
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "mask_token_id",
    "max_sequence_length", "model_max_length", "tokenizer_model_max_length",
    # Training only.
    "initializer_range", "attention_dropout", "hidden_dropout", "hidden_dropout_prob", "resid_dropout",
    "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop", "classifier_dropout",
    "gradient_checkpointing", "label_smoothing", "z_loss_coefficient", "router_aux_loss_coef",
    # How another program runs or labels the model, not what it computes.
    "use_cache", "return_dict", "output_attentions", "output_hidden_states", "torchscript", "use_bfloat16",
    "tf_legacy_loss", "id2label", "label2id", "num_labels", "problem_type", "finetuning_task",
    "task_specific_params", "_attn_implementation", "attn_implementation", "_attn_implementation_autoset",
    "_flash_attn_2_enabled", "use_flash_attn", "use_flash_attention", "chunk_size_feed_forward",
    # Sampling defaults that old files kept here; the caller's own settings decide.
    "max_length", "max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "typical_p", "num_beams",
    "num_beam_groups", "num_return_sequences", "early_stopping", "output_scores", "return_dict_in_generate",
    "length_penalty", "diversity_penalty", "remove_invalid_values",
})  # fmt: skip

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "pretraining_tp": (1,),
    "partial_rotary_factor": (1,),
    "rotary_pct": (1,),
    "attention_multiplier": (1,),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "repetition_penalty": (1,),
    "encoder_no_repeat_ngram_size": (0,),
    "no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "num_experts": (0, 1),
    "num_local_experts": (0, 1),
    "num_nextn_predict_layers": (0,),
}
"""Keys that other models of this shape use to change the maths, with the values that change nothing.

null, false and empty are neutral for every key: `quantization_config`, `rope_interleaved`, `auto_map`
(code of the model's own) and the like need no line here.
"""


def check_config_keys(config: Mapping[str, Any], computed: frozenset[str]) -> None:
    """Raise UnsupportedModel, naming the key, when `config` asks for maths that is not implemented.

    Args: computed: the keys that the caller reads.
    """
    for key, value in config.items():
        if key in NEUTRAL:
            if value is not None and (isinstance(value, bool) or value not in NEUTRAL[key]):
                wanted = " or ".join(str(neutral) for neutral in NEUTRAL[key])
                raise UnsupportedModel(f"config.json: {shown(key)} is {shown(value)}; only {wanted} is implemented")
        elif key not in computed and key not in HARMLESS and not is_off(value):
            raise UnsupportedModel(f"config.json: {shown(key)} is {shown(value)}, which is not implemented")


def is_off(value: Any) -> bool:
    """Say whether a value switches its key off, whatever the key."""
    return value is None or value is False or value in ("", [], {})
