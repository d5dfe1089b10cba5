"""Hugging Face directories give the token ids and texts that transformers' AutoTokenizer gives.

Does not cover: GGUF files (test_tokenizer_gguf.py), chat templates (test_tokenizer_chat.py).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import CheckpointError, InputError, ModelNotFound, UnsupportedModel
from coordinator.tokenizer import Tokenizer, load_tokenizer
from tests.support.tokenizer_comparison import differences
from tests.support.tokenizer_files import (
    TEXTS,
    byte_level_tokenizer_json,
    byte_level_words,
    sentencepiece_model,
    write_directory,
)
from tests.support.transformers_answers import Theirs

LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
ADDED = {
    str(i): {
        "content": content, "special": special, "normalized": normalized,
        "lstrip": False, "rstrip": False, "single_word": False,
    }
    for i, content, special, normalized in [
        (0, "<unk>", True, True), (1, "<s>", True, True), (2, "</s>", True, True),
        (3, "<sep>", False, False), (1200, "<tool>", False, True), (1201, "[INST]", True, False),
    ]
}  # fmt: skip
BOS_OBJECT = {"__type": "AddedToken", "content": "<s>", "normalized": True, "lstrip": False, "rstrip": False}
LLAMA_2_NORMALIZER = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ],
}
OLDER_FILES = {
    "special_tokens_map.json": {
        "bos_token": {"content": "<s>", "normalized": True, "lstrip": False, "rstrip": False, "single_word": False},
        "additional_special_tokens": ["[INST]"],
    },
    "added_tokens.json": {"<tool>": 1200, "[INST]": 1201},
}
SENTENCEPIECE_CASES: dict[str, tuple[str, dict[str, Any] | None, dict[str, Any]]] = {
    "llama without BOS": ("llama", LLAMA, {}),
    "llama 2": ("llama", {**LLAMA, "add_bos_token": True, "legacy": False}, {}),
    "legacy llama with EOS": ("llama", {**LLAMA, "add_bos_token": True, "add_eos_token": True, "legacy": True}, {}),
    "llama with added tokens": ("llama", {**LLAMA, "bos_token": BOS_OBJECT, "added_tokens_decoder": ADDED}, {}),
    "no space before the text": ("llama", {**LLAMA, "add_bos_token": True, "add_prefix_space": False}, {}),
    "files of an older transformers": ("llama", {**LLAMA, "add_bos_token": True}, OLDER_FILES),
    "no tokenizer_config.json": ("llama", None, {}),
    "no tokenizer class": ("llama", {"add_bos_token": True}, {}),
    "mistral": ("mistral", {**LLAMA, "add_bos_token": True, "legacy": True, "added_tokens_decoder": ADDED}, {}),
    "mistral, not legacy": ("mistral", {**LLAMA, "add_bos_token": True, "legacy": False}, {}),
    "mistral with more tokens": ("mistral", {**LLAMA, "additional_special_tokens": ["[INST]", "[/INST]"]}, {}),
}


def assert_same(theirs: Theirs, directory: Path) -> Tokenizer:
    """Compare every text, with and without special tokens, there and back, with AutoTokenizer."""
    reference = theirs.tokenizer(directory, TEXTS)
    ours = load_tokenizer(directory)
    assert differences(ours, reference, TEXTS) == []
    assert ours.vocab_size == len(reference)
    assert ours.bos_id == reference.bos_token_id
    if reference.eos_token_id is not None:
        assert ours.eos_ids == {reference.eos_token_id}
    return ours


@pytest.mark.parametrize("case", SENTENCEPIECE_CASES)
def test_sentencepiece_directory_encodes_as_transformers_does(case: str, tmp_path: Path, theirs: Theirs) -> None:
    """A tokenizer.model without tokenizer.json is read with the flags of tokenizer_config.json."""
    model_type, config, files = SENTENCEPIECE_CASES[case]
    files = {"tokenizer.model": sentencepiece_model(), **files}
    if config is not None:
        files["tokenizer_config.json"] = config
    assert_same(theirs, write_directory(tmp_path, model_type, files))


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("llama", LLAMA),
        ("llama", {**LLAMA, "legacy": True}),
        ("llama", {**LLAMA, "tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False}),
        ("llama", {**LLAMA, "tokenizer_class": "PreTrainedTokenizerFast"}),
        ("llama", None),
        ("mistral", LLAMA),
    ],
)
def test_llama_2_tokenizer_json_encodes_as_transformers_does(
    model_type: str, config: dict[str, Any] | None, tmp_path: Path, theirs: Theirs
) -> None:
    """A tokenizer.json as Llama 2 has it means what the tokenizer class says, also before leading spaces."""
    source = write_directory(
        tmp_path,
        "llama",
        {"tokenizer.model": sentencepiece_model(), "tokenizer_config.json": {**LLAMA, "add_bos_token": True}},
    )
    pipeline = {**theirs.ask("tokenizer_json", source), "normalizer": LLAMA_2_NORMALIZER, "pre_tokenizer": None}
    directory = tmp_path / "model"
    directory.mkdir()
    files: dict[str, Any] = {"tokenizer.json": pipeline}
    if config is not None:
        files["tokenizer_config.json"] = config
    assert_same(theirs, write_directory(directory, model_type, files))


def test_demo_vocabulary_saved_by_transformers_encodes_the_same(
    demo_model: Path, tmp_path: Path, theirs: Theirs
) -> None:
    """What save_pretrained writes is read back to the same tokens; its words and merges are the GGUF's."""
    saved = theirs.ask("saved_tokenizer", demo_model / "model.gguf")
    tokens, merges = byte_level_words(demo_model / "model.gguf")
    vocab, pairs = {token: index for index, token in enumerate(tokens)}, [merge.split(" ") for merge in merges]
    words = json.dumps([vocab, pairs], sort_keys=True)
    assert hashlib.sha256(words.encode()).hexdigest() == saved["words_sha256"]
    saved["files"]["tokenizer.json"]["model"].update(vocab=vocab, merges=pairs)
    assert_same(theirs, write_directory(tmp_path, "llama", saved["files"]))


def test_qwen_directory_encodes_as_transformers_does(tmp_path: Path, theirs: Theirs) -> None:
    """A byte-level tokenizer.json is taken as it stands, special tokens by tokenizer_config.json."""
    pipeline = json.loads(byte_level_tokenizer_json())
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    pipeline["normalizer"] = {"type": "NFC"}
    pipeline["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": pattern + r"|\s+(?!\S)|\s+"},
                "behavior": "Isolated",
                "invert": False,
            },
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        ],
    }
    config = {
        "tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", "<tool>"],
    }  # fmt: skip
    assert_same(
        theirs, write_directory(tmp_path, "qwen2", {"tokenizer.json": pipeline, "tokenizer_config.json": config})
    )


@pytest.mark.parametrize(
    ("generation_config", "model_config", "expected"),
    [
        ({"eos_token_id": [1, 2]}, {"eos_token_id": 0}, {1, 2}),
        ({"eos_token_id": 1}, {"eos_token_id": 0}, {1}),
        ({}, {"eos_token_id": [0, 1]}, {0, 1}),
        (None, {}, {2}),
    ],
)
def test_answers_end_at_the_ids_of_the_most_specific_file(
    generation_config: dict[str, Any] | None, model_config: dict[str, Any], expected: set[int], tmp_path: Path
) -> None:
    """generation_config.json decides, else config.json, else the tokenizer's own EOS."""
    files: dict[str, Any] = {
        "tokenizer.json": byte_level_tokenizer_json(),
        "tokenizer_config.json": {"eos_token": "<|im_end|>"},
        "config.json": {"model_type": "llama", **model_config},
    }
    if generation_config is not None:
        files["generation_config.json"] = generation_config
    assert load_tokenizer(write_directory(tmp_path, "llama", files)).eos_ids == expected


def test_bos_of_a_model_without_one_in_its_tokenizer_is_its_configs(tmp_path: Path) -> None:
    """Qwen's tokenizer adds no BOS, yet an empty prompt has to start from something."""
    files = {"tokenizer.json": byte_level_tokenizer_json(), "generation_config.json": {"bos_token_id": 1}}
    assert load_tokenizer(write_directory(tmp_path, "qwen2", files)).bos_id == 1


def test_text_with_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    """What is not Unicode has no tokens."""
    tokenizer = load_tokenizer(write_directory(tmp_path, "llama", {"tokenizer.json": byte_level_tokenizer_json()}))
    with pytest.raises(InputError, match="not valid Unicode"):
        tokenizer.encode("a\ud83d")


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, CheckpointError, "no tokenizer in"),
        ({"tokenizer.json": "{"}, CheckpointError, "tokenizer.json' cannot be read"),
        ({"tokenizer.json": b"\xff\xfe"}, CheckpointError, "tokenizer.json' cannot be read"),
        ({"tokenizer.json": {"model": 1}}, CheckpointError, "tokenizer.json' cannot be read"),
        ({"tokenizer.model": b"\xff\xff not protobuf"}, CheckpointError, "not a sentencepiece model"),
        ({"tokenizer.model": b""}, CheckpointError, "no pieces"),
        ({"tokenizer.model": sentencepiece_model("unigram")}, UnsupportedModel, "UNIGRAM"),
        ({"tokenizer_config.json": "[1]"}, CheckpointError, "does not hold a JSON object"),
        ({"tokenizer_config.json": "[" * 100_000}, CheckpointError, "is not JSON"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"x": {}}}}, CheckpointError, "special tokens"),
        ({"tokenizer_config.json": {"added_tokens_decoder": 5}}, CheckpointError, "special tokens"),
        ({"tokenizer_config.json": {"additional_special_tokens": [7]}}, CheckpointError, "7' is not a token"),
        ({"tokenizer_config.json": {"fast_tokenizer_files": 5}}, UnsupportedModel, "fast_tokenizer_files"),
        ({"tokenizer_config.json": {"extra_special_tokens": 5}}, CheckpointError, "special tokens"),
        ({"generation_config.json": {"eos_token_id": "</s>"}}, CheckpointError, "eos_token_id"),
        ({"generation_config.json": {"eos_token_id": [-1]}}, CheckpointError, "eos_token_id"),
    ],
)
def test_malformed_directory_is_refused_with_one_line(
    files: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    """A file from a stranger ends in a typed error that says where and what."""
    if files and not any(name.startswith("tokenizer.") for name in files):
        files = {"tokenizer.json": byte_level_tokenizer_json(), **files}
    with pytest.raises(error, match=message) as caught:
        load_tokenizer(write_directory(tmp_path, "llama", files))
    assert "\n" not in str(caught.value)


def test_missing_model_is_named(tmp_path: Path) -> None:
    """The place that was asked for is in the message."""
    with pytest.raises(ModelNotFound, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")


def test_directory_with_two_gguf_files_asks_which(tmp_path: Path) -> None:
    """Nothing is guessed."""
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ModelNotFound, match=r"2 \.gguf files"):
        load_tokenizer(tmp_path)
