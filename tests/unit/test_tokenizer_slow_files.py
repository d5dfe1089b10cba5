"""Directories without tokenizer.json, as slow tokenizers were saved: vocab.json with merges.txt.

Does not cover: a sentencepiece tokenizer.model (test_tokenizer_directory.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import CheckpointError, UnsupportedModel
from coordinator.tokenizer import load_tokenizer
from coordinator.tokenizer.keep import keep_tokenizer
from tests.support.tokenizer_comparison import differences, stream_differences
from tests.support.tokenizer_files import TEXTS, byte_level_tokenizer_json, sentencepiece_model, write_directory
from tests.support.transformers_answers import Theirs

MODEL = json.loads(byte_level_tokenizer_json())["model"]
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = {word: i for i, word in enumerate(sorted(set(MODEL["vocab"]) - set(SPECIAL), key=MODEL["vocab"].__getitem__))}
MERGES = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in MODEL["merges"])
COUNT = len(WORDS)


def flags(content: str, **changed: bool) -> dict[str, Any]:
    """Return an entry of added_tokens_decoder."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": content, "special": True, **plain, **changed}


DECODER = {str(COUNT + i): flags(token) for i, token in enumerate(SPECIAL)}
QWEN = {"tokenizer_class": "Qwen2Tokenizer", "unk_token": None, "bos_token": None, "eos_token": "<|im_end|>"}
GPT2 = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
OLDER = {
    "added_tokens.json": {
        "<|endoftext|>": COUNT,
        "<|im_start|>": COUNT + 1,
        "<|im_end|>": COUNT + 2,
        "<sep>": COUNT + 3,
    },
    "special_tokens_map.json": {
        "eos_token": {key: value for key, value in flags("<|im_end|>").items() if key != "special"},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    },
}
CASES: dict[str, tuple[str, dict[str, Any] | None, dict[str, Any]]] = {
    "qwen": ("qwen2", {**QWEN, "added_tokens_decoder": DECODER}, {}),
    "qwen under the name of its fast class": ("qwen3", {**QWEN, "tokenizer_class": "Qwen2TokenizerFast"}, {}),
    "qwen without a class": ("qwen3", {"added_tokens_decoder": DECODER, "eos_token": "<|im_end|>"}, {}),
    "qwen under a wrong class": ("qwen2", {**GPT2, "added_tokens_decoder": DECODER}, {}),
    "nothing but the words": ("qwen2", None, {}),
    "files of an older transformers": ("qwen2", {"tokenizer_class": "Qwen2Tokenizer"}, OLDER),
    "gpt-2": ("llama", {**GPT2, "added_tokens_decoder": DECODER}, {}),
    "gpt-2 with a space first": ("llama", {**GPT2, "added_tokens_decoder": DECODER, "add_prefix_space": True}, {}),
    "qwen with a space first": ("qwen3", {**QWEN, "added_tokens_decoder": DECODER, "add_prefix_space": True}, {}),
    "with ends": ("llama", {**GPT2, "added_tokens_decoder": DECODER, "add_bos_token": True, "add_eos_token": True}, {}),
    "tokens that strip and are words": ("qwen3", {**QWEN, "added_tokens_decoder": {
        **DECODER, str(COUNT + 3): flags("<sep>", lstrip=True, special=False),
        str(COUNT + 4): flags("two", single_word=True, special=False), str(COUNT + 5): flags("naïve", normalized=True),
    }, "additional_special_tokens": ["<sep>"]}, {}),
}  # fmt: skip


def write(directory: Path, case: str) -> Path:
    """Write a directory of CASES."""
    model_type, config, files = CASES[case]
    files = {"vocab.json": WORDS, "merges.txt": MERGES, **files}
    if config is not None:
        files["tokenizer_config.json"] = config
    return write_directory(directory, model_type, files)


@pytest.mark.parametrize("case", CASES)
def test_vocab_and_merges_encode_as_transformers_does(case: str, tmp_path: Path, theirs: Theirs) -> None:
    """The class says how words are cut; special tokens come from whichever files there are."""
    directory = write(tmp_path, case)
    reference = theirs.tokenizer(directory, TEXTS)
    ours = load_tokenizer(directory)
    assert differences(ours, reference, TEXTS) == []
    assert stream_differences(ours, TEXTS) == []
    assert (ours.vocab_size, ours.bos_id) == (len(reference), reference.bos_token_id)
    assert ours.eos_ids == {reference.eos_token_id}


def test_a_class_that_reads_vocab_and_merges_is_given_them(tmp_path: Path) -> None:
    """A tokenizer.model beside them is another class's; transformers takes its pieces for words of bytes."""
    plain, both = tmp_path / "plain", tmp_path / "both"
    for directory in (plain, both):
        directory.mkdir()
        write(directory, "qwen")
    (both / "tokenizer.model").write_bytes(sentencepiece_model())
    assert load_tokenizer(both).encode("hello two") == load_tokenizer(plain).encode("hello two")


def test_vocab_and_merges_are_kept_without_the_weights(tmp_path: Path) -> None:
    """What is kept on a coordinator gives the same ids."""
    model, kept = tmp_path / "model", tmp_path / "kept"
    model.mkdir()
    kept.mkdir()
    keep_tokenizer(write(model, "qwen"), kept)
    ours = load_tokenizer(kept)
    assert [ours.encode(text) for text in TEXTS] == [load_tokenizer(model).encode(text) for text in TEXTS]


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({"merges.txt": None}, CheckpointError, "merges.txt is missing"),
        ({"vocab.json": None}, CheckpointError, "vocab.json is missing"),
        ({"vocab.json": "["}, CheckpointError, "cannot be read"),
        ({"merges.txt": "no such words\n"}, CheckpointError, "cannot be read"),
        ({"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}}, UnsupportedModel,
         "PreTrainedTokenizerFast"),
        ({"tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer"}}, UnsupportedModel, "RobertaTokenizer"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_refused_with_one_line(
    files: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    """What is missing or not supported is named."""
    every = {"vocab.json": WORDS, "merges.txt": MERGES, "tokenizer_config.json": GPT2, **files}
    present = {name: content for name, content in every.items() if content is not None}
    with pytest.raises(error, match=message) as caught:
        load_tokenizer(write_directory(tmp_path, "llama", present))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("tekken.json", "{}", "tekken.json"), ("tokenizer.model", "IQ== 0\nIg== 1\nIw== 2\n", "tiktoken")],
)
def test_other_kinds_of_vocabulary_are_refused_by_name(name: str, content: str, message: str, tmp_path: Path) -> None:
    """Mistral's own file, and Meta's for Llama 3."""
    with pytest.raises(UnsupportedModel, match=message):
        load_tokenizer(write_directory(tmp_path, "mistral", {name: content}))
