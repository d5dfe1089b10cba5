"""GGUF files give the token ids of the model they were made from.

Does not cover: chat templates (test_tokenizer_chat.py).
Where transformers' own reading of a GGUF file departs from the model's tokenizer, the model's is expected.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Pipeline

from common.errors import CheckpointError, UnsupportedModel
from coordinator.tokenizer import Tokenizer, load_tokenizer
from tests.support.tokenizer_files import (
    TEXTS,
    byte_level_keys,
    sentencepiece_keys,
    write_gguf,
)
from tests.support.transformers_answers import Theirs


def assert_same(theirs: Theirs, path: Path, ends: set[str], *, change: str = "") -> Tokenizer:
    """Compare every text there and back, and the special ids.

    Args: ends: every token that ends an answer, which transformers does not know of a GGUF. change: what makes its
        reading the model's, see questions.CHANGES.
    """
    reference = theirs.tokenizer(path, TEXTS, tokens=sorted(ends), change=change)
    ours = load_tokenizer(path)
    for text in TEXTS:
        ids = reference.encode(text)
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=True), text
    assert ours.vocab_size == len(reference)
    assert reference.eos_token in ends
    assert (ours.bos_id, ours.eos_ids) == (reference.bos_token_id, set(reference.token_ids.values()))
    return ours


def test_demo_model_encodes_as_transformers_with_its_own_pre_tokenizer(demo_model: Path, theirs: Theirs) -> None:
    """SmolLM2 splits every digit and then uses GPT-2's words; transformers ignores the first half in a GGUF."""
    ends = {"<|im_end|>", "<|endoftext|>", "<reponame>"}
    assert_same(theirs, demo_model / "model.gguf", ends, change="digits")


@pytest.mark.parametrize("pre", ["default", "gpt-2", "llama-bpe", "tekken", "qwen2"])
def test_byte_level_vocabulary_is_cut_as_its_pre_tokenizer_says(pre: str, tmp_path: Path, theirs: Theirs) -> None:
    """tokenizer.ggml.pre chooses the words; Qwen also composes characters, as its tokenizer.json says."""
    path = write_gguf(tmp_path / "model.gguf", byte_level_keys(pre))
    assert_same(theirs, path, {"<|im_end|>", "<|endoftext|>"}, change="nfc" if pre == "qwen2" else "")


def test_pre_tokenizers_cut_numbers_differently(tmp_path: Path) -> None:
    """A wrong choice would show: the families disagree on how many digits make a word."""
    keys = byte_level_keys("gpt-2")
    digits = ["12", "34", "123", "1234"]
    keys["ggml.tokens"] = [*keys["ggml.tokens"], *digits]
    keys["ggml.token_type"] = [*keys["ggml.token_type"], *([1] * len(digits))]
    keys["ggml.merges"] = ["1 2", "3 4", "12 3", "12 34", *keys["ggml.merges"]]
    found = {}
    for pre in ("gpt-2", "llama-bpe", "qwen2", "smollm"):
        path = write_gguf(tmp_path / f"{pre}.gguf", keys | {"ggml.pre": pre})
        tokenizer = load_tokenizer(path)
        found[pre] = [tokenizer.decode([i]) for i in tokenizer.encode("1234")]
    assert found == {
        "gpt-2": ["1234"],
        "llama-bpe": ["123", "4"],
        "qwen2": list("1234"),
        "smollm": list("1234"),
    }


def test_whole_words_of_llama_3_need_no_merges(tmp_path: Path) -> None:
    """Llama 3 takes a word that is a token as it is; other families only what merges reach."""
    keys = byte_level_keys("llama-bpe")
    keys["ggml.tokens"] = [*keys["ggml.tokens"], "zqzqzq"]
    keys["ggml.token_type"] = [*keys["ggml.token_type"], 1]
    llama = load_tokenizer(write_gguf(tmp_path / "llama.gguf", keys))
    qwen = load_tokenizer(write_gguf(tmp_path / "qwen.gguf", keys | {"ggml.pre": "qwen2"}))
    assert llama.encode("zqzqzq") == [len(keys["ggml.tokens"]) - 1]
    assert len(qwen.encode("zqzqzq")) > 1


def test_sentencepiece_vocabulary_encodes_as_transformers_does(tmp_path: Path, theirs: Theirs) -> None:
    """Merges follow the scores; BOS is added where no flag says otherwise; spaces are llama.cpp's."""
    path = write_gguf(tmp_path / "model.gguf", sentencepiece_keys())
    ours = assert_same(theirs, path, {"</s>"}, change="spaces")
    assert ours.encode("hello")[0] == ours.bos_id


@pytest.mark.parametrize("make_keys", [sentencepiece_keys, lambda: byte_level_keys("smollm")])
def test_flags_say_what_is_put_around_a_text(make_keys: Any, tmp_path: Path) -> None:
    """add_bos_token and add_eos_token are obeyed both ways."""
    keys = make_keys() | {"ggml.add_bos_token": True, "ggml.add_eos_token": True}
    both = load_tokenizer(write_gguf(tmp_path / "both.gguf", keys))
    neither = load_tokenizer(
        write_gguf(tmp_path / "neither.gguf", keys | {"ggml.add_bos_token": False, "ggml.add_eos_token": False})
    )
    plain = neither.encode("hello")
    assert plain == both.encode("hello", add_special_tokens=False)
    assert both.encode("hello") == [1, *plain, 2]


def test_old_llama_3_file_without_a_flag_still_begins_with_bos(tmp_path: Path) -> None:
    """Files older than the flag mean what llama.cpp does with them."""
    keys = byte_level_keys("llama-bpe")
    del keys["ggml.add_bos_token"]
    assert load_tokenizer(write_gguf(tmp_path / "model.gguf", keys)).encode("a")[0] == 1


def test_no_space_is_put_before_a_text_when_the_file_says_so(tmp_path: Path) -> None:
    """add_space_prefix is obeyed, which transformers does not do: a leading space survives."""
    keys = sentencepiece_keys() | {"ggml.add_space_prefix": False, "ggml.add_bos_token": False}
    tokenizer = load_tokenizer(write_gguf(tmp_path / "model.gguf", keys))
    assert tokenizer.encode("the") != tokenizer.encode(" the")
    assert tokenizer.decode(tokenizer.encode(" the")) == " the"


def test_every_end_of_turn_token_of_the_file_ends_an_answer(tmp_path: Path) -> None:
    """EOS, end of turn and end of message count alike."""
    keys = byte_level_keys("llama-bpe") | {"ggml.eot_token_id": 0, "ggml.eom_token_id": 1}
    assert load_tokenizer(write_gguf(tmp_path / "model.gguf", keys)).eos_ids == {0, 1, 2}


def test_user_defined_token_is_found_whole_and_printed(tmp_path: Path) -> None:
    """A user-defined token is part of the text, a control token is not, whatever its characters."""
    keys = byte_level_keys("qwen2")
    keys["ggml.tokens"] = [*keys["ggml.tokens"], "<think>", "<｜end▁of▁turn｜>"]
    keys["ggml.token_type"] = [*keys["ggml.token_type"], 4, 3]
    tokenizer = load_tokenizer(write_gguf(tmp_path / "model.gguf", keys))
    count = len(keys["ggml.tokens"])
    assert tokenizer.encode("<think><｜end▁of▁turn｜>") == [count - 2, count - 1]
    assert tokenizer.decode([count - 2, count - 1]) == "<think>"
    assert tokenizer.vocab_size == count


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ggml.model": "rwkv"}, UnsupportedModel, "'rwkv'"),
        ({"ggml.model": 7}, CheckpointError, "is int, not str"),
        ({"ggml.pre": "exotic-7b"}, UnsupportedModel, "'exotic-7b'"),
        ({"ggml.pre": None}, UnsupportedModel, "tokenizer.ggml.pre is missing"),
        ({"ggml.tokens": ["a", "a"]}, CheckpointError, "same token twice"),
        ({"ggml.tokens": None}, CheckpointError, "not a list of texts"),
        ({"ggml.token_type": [1, 1]}, CheckpointError, "2 token types"),
        ({"ggml.merges": ["q zzz"]}, CheckpointError, "merges do not fit"),
        ({"ggml.merges": ["a b c"]}, CheckpointError, "merges do not fit"),
        ({"ggml.eos_token_id": 1_000_000}, CheckpointError, "eos_token_id is 1000000"),
        ({"ggml.add_bos_token": "yes"}, CheckpointError, "is str, not bool"),
        ({"ggml.model": "llama"}, CheckpointError, "0 usable scores"),
    ],
)
def test_contradictory_vocabulary_is_refused_with_one_line(
    change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    """What cannot be computed is refused by name, never guessed."""
    keys = {key: value for key, value in (byte_level_keys("smollm") | change).items() if value is not None}
    with pytest.raises(error, match=message) as caught:
        load_tokenizer(write_gguf(tmp_path / "model.gguf", keys))
    assert "\n" not in str(caught.value)


def test_file_cut_at_any_length_is_refused(tmp_path: Path) -> None:
    """A truncated head never passes for a whole one."""
    keys = {"ggml.model": "gpt2", "ggml.tokens": ["a", "b"], "ggml.merges": ["a b"], "ggml.add_bos_token": True}
    whole = write_gguf(tmp_path / "whole.gguf", keys).read_bytes()
    path = tmp_path / "cut.gguf"
    end = whole.rindex(b"add_bos_token") + len(b"add_bos_token") + 4
    for byte_count in range(0, end, 7):
        path.write_bytes(whole[:byte_count])
        with pytest.raises(CheckpointError, match=path.name):
            load_tokenizer(path)


@pytest.mark.parametrize(
    "head",
    [
        b"GGML" + bytes(20),
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62),
        b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"k", 99),
        b"GGUF" + struct.pack("<IQQQcIIQ", 3, 0, 1, 1, b"k", 9, 0, 1 << 62),
        b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"k", 9) + struct.pack("<IQ", 9, 1) * 100,
        b"GGUF" + struct.pack("<IQQQc", 3, 0, 1, 1, b"\xff") + bytes(8),
    ],
)
def test_hostile_head_is_refused_before_anything_is_allocated(head: bytes, tmp_path: Path) -> None:
    """Lengths are checked against the file's size before they are believed."""
    path = tmp_path / "model.gguf"
    path.write_bytes(head)
    with pytest.raises(CheckpointError, match=path.name):
        load_tokenizer(path)


def test_digits_and_words_of_the_demo_pre_tokenizer_are_those_of_its_tokenizer_json(demo_model: Path) -> None:
    """The stages, not only their results on some texts, are the ones SmolLM2 was trained with."""
    pipeline: Pipeline = load_tokenizer(demo_model)._pipeline  # type: ignore[attr-defined]
    stages = json.loads(pipeline.to_str())["pre_tokenizer"]["pretokenizers"]
    assert [stage["type"] for stage in stages] == ["Digits", "ByteLevel"]
    assert stages[0]["individual_digits"]
    assert stages[1]["use_regex"]
