"""What a GGUF file says besides its words: ends, tokens without a text, templates, and what is refused.

Does not cover: words and merges (test_tokenizer_gguf.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import CheckpointError, InputError, UnsupportedModel
from coordinator.tokenizer import Tokenizer, load_tokenizer
from tests.support.tokenizer_comparison import stream_differences
from tests.support.tokenizer_files import (
    CONTROL,
    NORMAL,
    TEXTS,
    USER_DEFINED,
    byte_level_keys,
    sentencepiece_keys,
    write_gguf,
)

UNDEFINED, UNUSED = 0, 5
MESSAGES = [{"role": "user", "content": "hi"}]


def load(tmp_path: Path, keys: dict[str, Any], tokens: dict[str, int] | None = None, **more: Any) -> Tokenizer:
    """Return the tokenizer of `keys` with these tokens and their types, and more keys of tokenizer.ggml."""
    added = tokens or {}
    keys = {
        **keys,
        "ggml.tokens": [*keys["ggml.tokens"], *added],
        "ggml.token_type": [*keys["ggml.token_type"], *added.values()],
        **{f"ggml.{name}": value for name, value in more.items()},
    }
    if "ggml.scores" in keys:
        keys["ggml.scores"] = [*keys["ggml.scores"], *(-1e6 for _ in added)]
    return load_tokenizer(write_gguf(tmp_path / "model.gguf", keys))


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        ({"<|eot_id|>": CONTROL, "<|start|>": CONTROL}, {"<|eot_id|>"}),
        ({"<|end|>": CONTROL, "<|eom_id|>": USER_DEFINED}, {"<|end|>", "<|eom_id|>"}),
        ({"<end_of_turn>": NORMAL, "<start_of_turn>": NORMAL}, {"<end_of_turn>"}),
        ({"<｜end▁of▁sentence｜>": CONTROL, "[EOS]": CONTROL}, {"<｜end▁of▁sentence｜>", "[EOS]"}),
        ({"<|fim_pad|>": CONTROL, "<|repo_name|>": CONTROL, "<|file_sep|>": CONTROL, "<|fim_prefix|>": CONTROL},
         {"<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"}),
        ({"<|return|>": CONTROL, "<|call|>": CONTROL, "<|end|>": CONTROL}, {"<|return|>", "<|call|>"}),
        ({"<|tool_response>": CONTROL, "</s>": CONTROL}, {"<|tool_response>"}),
    ],
)  # fmt: skip
def test_a_token_known_as_an_end_ends_an_answer_and_is_never_printed(
    tokens: dict[str, int], ends: set[str], tmp_path: Path
) -> None:
    """llama.cpp knows ends by their text, whatever type the file gives them; two of them only without companions."""
    keys = byte_level_keys("llama-bpe")
    count = len(keys["ggml.tokens"])
    tokenizer = load(tmp_path, keys, tokens)
    ids = {token: count + i for i, token in enumerate(tokens)}
    own = {0, 2}  # <|endoftext|> and <|im_end|>
    assert tokenizer.eos_ids == own | {ids[token] for token in ends}
    for token in ends:
        assert tokenizer.encode(token, add_special_tokens=False) == [ids[token]]
        assert tokenizer.decode([ids[token]]) == ""


def test_ids_in_the_metadata_end_an_answer_whatever_they_are_called(tmp_path: Path) -> None:
    """eot, eom and the ends of filling in code; their named ids take the place of known texts."""
    keys = byte_level_keys("llama-bpe")
    count = len(keys["ggml.tokens"])
    tokens = {"<a>": CONTROL, "<b>": CONTROL, "<c>": CONTROL, "<|fim_pad|>": CONTROL}
    named = {"eot_token_id": count, "eom_token_id": count + 1, "fim_pad_token_id": count + 2}
    assert load(tmp_path, keys, tokens, **named).eos_ids == {0, 2, count, count + 1, count + 2}


def test_sentencepiece_vocabulary_without_ids_has_llama_s(tmp_path: Path) -> None:
    """Files of the first months name none: unknown, BOS and EOS are 0, 1 and 2."""
    keys = {key: value for key, value in sentencepiece_keys().items() if not key.endswith("_token_id")}
    tokenizer = load_tokenizer(write_gguf(tmp_path / "model.gguf", keys))
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, {2})
    assert tokenizer.encode("a")[0] == 1
    assert tokenizer.decode([1, 0, 2]) == ""


@pytest.mark.parametrize("make_keys", [sentencepiece_keys, lambda: byte_level_keys("llama-bpe")])
def test_tokens_without_a_text_are_rows_that_say_nothing(make_keys: Any, tmp_path: Path) -> None:
    """Empty tokens may come more than once; unused ones fill the embedding's end. Neither is found in a text."""
    keys = make_keys()
    count = len(keys["ggml.tokens"])
    plain = load_tokenizer(write_gguf(tmp_path / "plain.gguf", keys))
    keys["ggml.tokens"] = [*keys["ggml.tokens"], "", "", "[PAD7]", ""]
    keys["ggml.token_type"] = [*keys["ggml.token_type"], NORMAL, CONTROL, UNUSED, UNDEFINED]
    if "ggml.scores" in keys:
        keys["ggml.scores"] = [*keys["ggml.scores"], 0.0, 0.0, -1e6, 0.0]
    tokenizer = load_tokenizer(write_gguf(tmp_path / "model.gguf", keys))
    silent = range(count, count + 4)
    assert tokenizer.vocab_size == count + 4
    for text in (*TEXTS, "[EMPTY_1200]", "\x00empty 1200"):
        ids = plain.encode(text)
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode([*ids, *silent]) == plain.decode(ids)
    assert stream_differences(tokenizer, TEXTS) == []


def test_lists_longer_than_the_vocabulary_and_whole_scores_are_taken(tmp_path: Path) -> None:
    """llama.cpp looks at as many as there are tokens, and takes whole numbers for scores."""
    keys = sentencepiece_keys()
    plain = load_tokenizer(write_gguf(tmp_path / "plain.gguf", keys))
    keys["ggml.scores"] = [*(round(score) for score in keys["ggml.scores"]), 0]
    keys["ggml.token_type"] = [*keys["ggml.token_type"], NORMAL]
    longer = load_tokenizer(write_gguf(tmp_path / "longer.gguf", keys))
    assert [longer.encode(text) for text in TEXTS] == [plain.encode(text) for text in TEXTS]


@pytest.mark.parametrize("copies", [["same", "same"], ["[PAD1]", "[PAD1]"]])
def test_a_text_that_two_tokens_have_is_refused(copies: list[str], tmp_path: Path) -> None:
    """Only empty tokens may repeat: of others there is no telling which is meant."""
    keys = byte_level_keys("llama-bpe")
    keys["ggml.tokens"] = [*keys["ggml.tokens"], *copies]
    keys["ggml.token_type"] = [*keys["ggml.token_type"], UNUSED, UNUSED]
    with pytest.raises(CheckpointError, match="same token twice"):
        load_tokenizer(write_gguf(tmp_path / "model.gguf", keys))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("add_space_prefix", True), ("remove_extra_whitespaces", True), ("precompiled_charsmap", [1, 2, 3]),
        ("add_sep_token", True), ("suppress_tokens", [3]), ("normalizer.lowercase", True), ("added_tokens", ["<a>"]),
        ("new_in_2027", "on"),
    ],
)  # fmt: skip
def test_a_key_that_would_change_ids_or_text_is_refused_by_name(option: str, value: Any, tmp_path: Path) -> None:
    """And taken where it is switched off."""
    keys = byte_level_keys("llama-bpe")
    with pytest.raises(UnsupportedModel, match=option) as caught:
        load(tmp_path, keys, **{option: value})
    assert "\n" not in str(caught.value)
    off = False if isinstance(value, bool) else type(value)()
    if off != []:  # the writer of the tests has no empty lists
        assert load(tmp_path, keys, **{option: off}).encode("a")


def test_keys_that_change_nothing_are_taken(tmp_path: Path) -> None:
    """Tokens for masks and separators, scores of a vocabulary that merges by rank."""
    keys = byte_level_keys("llama-bpe")
    more = {
        "mask_token_id": 0,
        "seperator_token_id": 0,
        "fim_pre_token_id": 0,
        "cls_token_id": 0,
        "token_type_count": 1,
    }
    plain = load_tokenizer(write_gguf(tmp_path / "plain.gguf", keys))
    assert load(tmp_path, keys, **more).encode("one two") == plain.encode("one two")


def test_a_space_stands_after_each_special_token_of_a_sentencepiece_vocabulary(tmp_path: Path) -> None:
    """What follows a marker of a chat begins as a text does, as llama.cpp has it and Llama was trained."""
    tokenizer = load_tokenizer(
        write_gguf(tmp_path / "model.gguf", sentencepiece_keys() | {"ggml.add_bos_token": False})
    )
    the = tokenizer.encode("the")
    assert tokenizer.encode("<s>the</s>the") == [1, *the, 2, *the]


def test_of_several_templates_the_default_is_taken(tmp_path: Path) -> None:
    """tokenizer.chat_template is the default; others have names."""
    keys = byte_level_keys("llama-bpe")
    keys |= {"chat_templates": ["tool_use"], "chat_template.tool_use": "tools", "chat_template": "plain"}
    assert load_tokenizer(write_gguf(tmp_path / "model.gguf", keys)).chat_prompt(MESSAGES) == "plain"
    del keys["chat_template"]
    named = load_tokenizer(write_gguf(tmp_path / "named.gguf", keys))
    with pytest.raises(InputError, match="tool_use, and none of them is its default"):
        named.chat_prompt(MESSAGES)
