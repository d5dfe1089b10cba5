"""Which tokenizer class transformers takes for a directory, and which options of its files are refused by name.

    honoured    tokens by role and by id with all their flags, extra_special_tokens, additional_special_tokens,
                add_bos_token and add_eos_token (where there is no tokenizer.json, whose post-processor decides),
                add_prefix_space and legacy (where the class looks at them), split_special_tokens, chat_template,
                fix_mistral_regex; of tokenizer.json everything but truncation and padding, which are for batches
    refused     what is below
    no effect   clean_up_tokenization_spaces (on BPE), spaces_between_special_tokens, use_default_system_prompt,
                sp_model_kwargs, errors, model_max_length, padding_side, truncation_side, max_length, stride, and every
                key that transformers does not know

Covers: the directories of the families we run. Does not cover: computing (hf_directory.py, merges_files.py).
Source: AutoTokenizer and TokenizersBackend of transformers 5.24.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

from common.errors import UnsupportedModel
from coordinator.checkpoints.config_values import shown
from coordinator.tokenizer.byte_level_pipeline import TEKKEN

OWN_PIPELINE = "PreTrainedTokenizerFast"
"""The class that takes a file's pipeline as it stands."""
_CLASS_OF_MODEL = {"mistral": OWN_PIPELINE, "qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer"}
"""By config.json's model_type, where transformers has one."""
_ALWAYS_THE_MODELS = frozenset({"qwen2"})
"""Models whose directories often name a wrong class."""
CLEAN_UP = "clean_up_tokenization_spaces"
CLEAN_UP_BPE = f"{CLEAN_UP}_for_bpe_even_though_it_will_corrupt_output"
_MANY_TOKENS = 100_000
"""transformers mends the words of vocabularies above this size only."""


def tokenizer_class(config: Mapping[str, Any], model_config: Mapping[str, Any]) -> str:
    """Return the name of the class, without `Fast`.

    Args: config: tokenizer_config.json; model_config: config.json.
    """
    declared = config.get("tokenizer_class") or model_config.get("tokenizer_class")
    model_type = str(model_config.get("model_type"))
    of_model = _CLASS_OF_MODEL.get(model_type)
    if not isinstance(declared, str):
        return of_model or OWN_PIPELINE
    if declared in (OWN_PIPELINE, "TokenizersBackend", "PythonBackend", "PreTrainedTokenizer"):
        declared = OWN_PIPELINE
    else:
        declared = declared.removesuffix("Fast")
    if of_model == OWN_PIPELINE or model_type in _ALWAYS_THE_MODELS:
        return of_model or OWN_PIPELINE
    return declared


def refuse_options(pipeline: Pipeline, config: Mapping[str, Any], directory: Path) -> None:
    """Raise UnsupportedModel, naming the option, where one is set that changes ids or texts and is not computed."""
    is_bpe = isinstance(pipeline.model, BPE)
    if config.get(CLEAN_UP) and (not is_bpe or config.get(CLEAN_UP_BPE)):
        option = CLEAN_UP_BPE if is_bpe else CLEAN_UP
        raise UnsupportedModel(f"{option} in '{directory}/tokenizer_config.json' is true, which is not implemented")
    files = config.get("fast_tokenizer_files") or ["tokenizer.json"]
    if files != ["tokenizer.json"]:
        place = f"'{directory}/tokenizer_config.json'"
        raise UnsupportedModel(f"fast_tokenizer_files in {place} is {shown(files)}; only tokenizer.json is read")
    dropout = getattr(pipeline.model, "dropout", None)
    if dropout:
        raise UnsupportedModel(
            f"dropout in '{directory}/tokenizer.json' is {shown(dropout)}, to cut every text at random, which is not "
            "implemented"
        )


def set_options(pipeline: Pipeline, config: Mapping[str, Any], model_config: Mapping[str, Any]) -> None:
    """Give a whole pipeline the options of tokenizer_config.json that hold for every class."""
    pipeline.encode_special_tokens = bool(config.get("split_special_tokens", False))
    # Mistral's directories of 2024 and 2025 cut words in a wrong way; some say that it is to be mended.
    version = str(model_config.get("transformers_version") or "0").partition(".")[0]
    is_concerned = model_config.get("model_type") in (None, "mistral") and version.isdecimal() and int(version) < 5
    if config.get("fix_mistral_regex") is True and is_concerned and pipeline.get_vocab_size() > _MANY_TOKENS:
        split = pre_tokenizers.Split(Regex(str(TEKKEN.split)), behavior="isolated")
        if isinstance(pipeline.pre_tokenizer, pre_tokenizers.Sequence):
            pipeline.pre_tokenizer[0] = split
        elif pipeline.pre_tokenizer is not None:
            rest = pipeline.pre_tokenizer
            if isinstance(rest, pre_tokenizers.Metaspace):
                rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            pipeline.pre_tokenizer = pre_tokenizers.Sequence([split, rest])
