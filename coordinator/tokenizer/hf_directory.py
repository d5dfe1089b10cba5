"""Builds the tokenizer of a Hugging Face directory, to the same token ids as transformers' AutoTokenizer.

Covers: tokenizer.json, or a sentencepiece tokenizer.model where there is none; which tokens end an answer.
Does not cover: tokenizers that are Python code in the directory: such code is never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

from common.errors import CheckpointError
from coordinator.tokenizer.sentencepiece_model import (
    CONTROL,
    USER_DEFINED,
    added_pieces,
    build_llama_pipeline,
    build_own_pipeline,
    own_special_tokens,
    read_sentencepiece_model,
)
from coordinator.tokenizer.sentencepiece_pipeline import prefix_space_scheme, set_llama_stages
from coordinator.tokenizer.special_tokens import SpecialTokens, optional_json_object, read_special_tokens
from coordinator.tokenizer.text_tokenizer import TextTokenizer, add_ends

TOKENIZER_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"
TEMPLATE_FILE = "chat_template.jinja"
LLAMA_TOKENS = {
    "bos_token": AddedToken("<s>", special=True),
    "eos_token": AddedToken("</s>", special=True),
    "unk_token": AddedToken("<unk>", special=True),
}
"""What transformers' LlamaTokenizer assumes where the directory says nothing."""


def load_directory_tokenizer(directory: Path) -> TextTokenizer:
    """Read the tokenizer in `directory`.

    Raises: CheckpointError: a file is malformed. UnsupportedModel: a kind of vocabulary we do not compute.
    """
    config = optional_json_object(directory / "tokenizer_config.json")
    model_config = optional_json_object(directory / "config.json")
    if (directory / TOKENIZER_FILE).is_file():
        pipeline, special = _from_tokenizer_json(directory, config, model_config)
    else:
        pipeline, special = _from_sentencepiece(directory, config, model_config)
    generation_config = optional_json_object(directory / "generation_config.json")
    names = special.texts()
    bos_id = _token_id(pipeline, names.get("bos_token"))
    eos_ids = frozenset[int]()
    for source in (generation_config, model_config):
        eos_ids = eos_ids or _ids(source, "eos_token_id", directory)
        if bos_id is None:
            bos_id = min(_ids(source, "bos_token_id", directory), default=None)
    if not eos_ids:
        eos_ids = frozenset(i for i in [_token_id(pipeline, names.get("eos_token"))] if i is not None)
    return TextTokenizer(
        pipeline,
        bos_id=bos_id,
        eos_ids=eos_ids,
        chat_template=_chat_template(directory, config),
        special_tokens=names,
        source=str(directory),
    )


def _from_tokenizer_json(
    directory: Path, config: dict[str, Any], model_config: dict[str, Any]
) -> tuple[Pipeline, SpecialTokens]:
    path = directory / TOKENIZER_FILE
    try:
        text = path.read_text(encoding="utf-8")
        pipeline = Pipeline.from_str(text)
    except Exception as error:  # tokenizers raises nothing narrower.
        raise CheckpointError(f"'{path}' cannot be read: {error}") from error
    defaults = SpecialTokens(by_id=pipeline.get_added_tokens_decoder())
    if _is_llama_tokenizer(config, model_config) and isinstance(pipeline.model, BPE) and '"ByteLevel"' not in text:
        # transformers 5 keeps only the vocabulary and the post-processor of such a file.
        defaults = SpecialTokens(named=LLAMA_TOKENS, by_id=defaults.by_id)
        model = pipeline.model
        model.unk_token, model.fuse_unk, model.byte_fallback, model.ignore_merges = None, True, True, False
        set_llama_stages(pipeline, prefix_space=_prefix_space(config))
    special = read_special_tokens(directory, config, defaults)
    special.add_to(pipeline)
    return pipeline, special


def _from_sentencepiece(
    directory: Path, config: dict[str, Any], model_config: dict[str, Any]
) -> tuple[Pipeline, SpecialTokens]:
    proto = read_sentencepiece_model(directory / SENTENCEPIECE_FILE)
    if _is_llama_tokenizer(config, model_config):
        defaults = SpecialTokens(named=LLAMA_TOKENS, extra=added_pieces(proto, CONTROL, USER_DEFINED))
        special = read_special_tokens(directory, config, defaults)
        pipeline = build_llama_pipeline(proto, prefix_space=_prefix_space(config))
    else:
        defaults = SpecialTokens(named=own_special_tokens(proto), extra=added_pieces(proto, CONTROL))
        special = read_special_tokens(directory, config, defaults)
        names = {i: token.content for i, token in special.by_id.items()}
        pipeline = build_own_pipeline(proto, legacy=config.get("legacy") is not False, names=names)
        if proto.normalizer_spec.add_dummy_prefix:
            special = special.found_in_raw_text()
    special.add_to(pipeline)
    ends = {end: _end(pipeline, special, end) if config.get(f"add_{end}_token") else None for end in ("bos", "eos")}
    add_ends(pipeline, bos=ends["bos"], eos=ends["eos"])
    return pipeline, special


def _end(pipeline: Pipeline, special: SpecialTokens, end: str) -> tuple[str, int] | None:
    token = special.texts().get(f"{end}_token")
    token_id = _token_id(pipeline, token)
    return None if token is None or token_id is None else (token, token_id)


def _is_llama_tokenizer(config: dict[str, Any], model_config: dict[str, Any]) -> bool:
    """Say whether AutoTokenizer takes its LlamaTokenizer, which replaces the file's own pipeline."""
    declared = config.get("tokenizer_class") or model_config.get("tokenizer_class")
    return declared in ("LlamaTokenizer", "LlamaTokenizerFast") and model_config.get("model_type") != "mistral"


def _prefix_space(config: dict[str, Any]) -> str:
    return prefix_space_scheme(
        add_prefix_space=config.get("add_prefix_space") is not False, legacy=bool(config.get("legacy", False))
    )


def _token_id(pipeline: Pipeline, token: str | None) -> int | None:
    return None if token is None else pipeline.token_to_id(token)


def _ids(config: dict[str, Any], key: str, directory: Path) -> frozenset[int]:
    """Return the token ids under `key`: a number, a list of them, or nothing."""
    value = config.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise CheckpointError(f"{key} in '{directory}' is {value!r}, not a token id or a list of them")
    return frozenset(ids)


def _chat_template(directory: Path, config: dict[str, Any]) -> str | None:
    """Return the default template: of its own file, else of tokenizer_config.json (one, or several by name)."""
    path = directory / TEMPLATE_FILE
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"'{path}' cannot be read: {error}") from error
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    elif isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None
