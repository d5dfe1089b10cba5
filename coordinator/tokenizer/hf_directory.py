"""Builds the tokenizer of a Hugging Face directory, to the same token ids as transformers' AutoTokenizer.

Covers: tokenizer.json, or where there is none vocab.json with merges.txt or a sentencepiece tokenizer.model; which
tokens end an answer. A class that contradicts its own tokenizer.json is not followed, LlamaTokenizer excepted.
Does not cover: options (directory_options.py), chat templates (template_files.py); tokenizers that are Python code in
the directory: such code is never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

from common.errors import CheckpointError
from coordinator.tokenizer.directory_options import refuse_options, set_options, tokenizer_class
from coordinator.tokenizer.merges_files import CLASS_TOKENS, RULES, pipeline_of_merges
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
from coordinator.tokenizer.template_files import read_chat_templates
from coordinator.tokenizer.text_tokenizer import TextTokenizer, add_ends
from coordinator.tokenizer.vocabulary_place import SENTENCEPIECE_FILE, TOKENIZER_FILE, VOCAB_FILE

LLAMA_CLASS = "LlamaTokenizer"
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
    class_name = tokenizer_class(config, model_config)
    if (directory / TOKENIZER_FILE).is_file():
        pipeline, special = _from_tokenizer_json(directory, config, class_name)
    elif (directory / SENTENCEPIECE_FILE).is_file() and not (
        class_name in RULES and (directory / VOCAB_FILE).is_file()
    ):
        pipeline, special = _from_sentencepiece(directory, config, class_name)
    else:
        pipeline, special = _from_merges(directory, config, class_name)
    refuse_options(pipeline, config, directory)
    set_options(pipeline, config, model_config)
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
        chat_templates=read_chat_templates(directory, config),
        special_tokens=names,
        source=str(directory),
    )


def _from_tokenizer_json(directory: Path, config: dict[str, Any], class_name: str) -> tuple[Pipeline, SpecialTokens]:
    path = directory / TOKENIZER_FILE
    try:
        text = path.read_text(encoding="utf-8")
        pipeline = Pipeline.from_str(text)
    except Exception as error:  # tokenizers raises nothing narrower.
        raise CheckpointError(f"'{path}' cannot be read: {error}") from error
    defaults = SpecialTokens(named=CLASS_TOKENS.get(class_name, {}), by_id=pipeline.get_added_tokens_decoder())
    if class_name == LLAMA_CLASS and isinstance(pipeline.model, BPE) and '"ByteLevel"' not in text:
        # transformers 5 keeps only the vocabulary and the post-processor of such a file.
        defaults = SpecialTokens(named=LLAMA_TOKENS, by_id=defaults.by_id)
        model = pipeline.model
        model.unk_token, model.fuse_unk, model.byte_fallback, model.ignore_merges = None, True, True, False
        model.dropout = None
        set_llama_stages(pipeline, prefix_space=_prefix_space(config))
    special = _special_tokens(directory, config, class_name, defaults)
    special.add_to(pipeline)
    return pipeline, special


def _from_sentencepiece(directory: Path, config: dict[str, Any], class_name: str) -> tuple[Pipeline, SpecialTokens]:
    proto = read_sentencepiece_model(directory / SENTENCEPIECE_FILE)
    if class_name == LLAMA_CLASS:
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
    _add_own_ends(pipeline, special, config)
    return pipeline, special


def _from_merges(directory: Path, config: dict[str, Any], class_name: str) -> tuple[Pipeline, SpecialTokens]:
    pipeline = pipeline_of_merges(directory, class_name, config)
    special = _special_tokens(directory, config, class_name, SpecialTokens(named=CLASS_TOKENS[class_name]))
    special.add_to(pipeline)
    _add_own_ends(pipeline, special, config)
    return pipeline, special


def _special_tokens(directory: Path, config: dict[str, Any], class_name: str, defaults: SpecialTokens) -> SpecialTokens:
    special = read_special_tokens(directory, config, defaults)
    return special.never_printed() if class_name == "Qwen2Tokenizer" else special


def _add_own_ends(pipeline: Pipeline, special: SpecialTokens, config: dict[str, Any]) -> None:
    """Put around a text what tokenizer_config.json says, where no file has a post-processor."""
    ends = {end: _end(pipeline, special, end) if config.get(f"add_{end}_token") else None for end in ("bos", "eos")}
    add_ends(pipeline, bos=ends["bos"], eos=ends["eos"])


def _end(pipeline: Pipeline, special: SpecialTokens, end: str) -> tuple[str, int] | None:
    token = special.texts().get(f"{end}_token")
    token_id = _token_id(pipeline, token)
    return None if token is None or token_id is None else (token, token_id)


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
