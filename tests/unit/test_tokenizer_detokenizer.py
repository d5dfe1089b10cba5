"""Text that is printed token by token is whole characters, and in the end the same text.

Does not cover: decoding itself (test_tokenizer_gguf.py, test_tokenizer_directory.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InternalError
from coordinator.tokenizer import IncrementalDetokenizer, Tokenizer, load_tokenizer
from tests.support.thorough import examples
from tests.support.tokenizer_files import TEXTS, sentencepiece_keys, write_gguf

HALF = "\N{REPLACEMENT CHARACTER}"
LAST_BYTE_ID = 300
"""The demo vocabulary begins with its special tokens and the single bytes."""
MIXED = [text for text in TEXTS if HALF not in text]


@pytest.fixture(scope="session")
def byte_level(demo_model: Path) -> Tokenizer:
    """Return the demo model's tokenizer: byte-level BPE."""
    return load_tokenizer(demo_model)


@pytest.fixture(scope="session")
def byte_fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Return a tokenizer like Llama 2's: pieces, and bytes for what has no piece."""
    return load_tokenizer(write_gguf(tmp_path_factory.mktemp("sp") / "model.gguf", sentencepiece_keys()))


def pieces(tokenizer: Tokenizer, ids: list[int], prompt_ids: list[int]) -> list[str]:
    """Return what is printed for each token, and at the end."""
    detokenizer = IncrementalDetokenizer(tokenizer, prompt_ids)
    return [*(detokenizer.push(i) for i in ids), detokenizer.finish()]


def assert_streams(tokenizer: Tokenizer, ids: list[int], split: int) -> None:
    """Check that prompt and pieces are the whole text: then no piece showed half a character as a whole one."""
    prompt_ids, answer_ids = ids[:split], ids[split:]
    printed = pieces(tokenizer, answer_ids, prompt_ids)
    assert tokenizer.decode(prompt_ids).rstrip(HALF) + "".join(printed) == tokenizer.decode(ids)


@settings(max_examples=examples(300))
@given(data=st.data())
def test_random_tokens_join_to_their_text(byte_level: Tokenizer, data: st.DataObject) -> None:
    """Any tokens, valid text or not, with any part of them as the prompt."""
    ids = data.draw(st.lists(st.integers(0, byte_level.vocab_size - 1), max_size=40))
    assert_streams(byte_level, ids, data.draw(st.integers(0, len(ids))))


@settings(max_examples=examples(300))
@given(data=st.data())
def test_random_bytes_join_to_their_text(byte_level: Tokenizer, data: st.DataObject) -> None:
    """Single bytes and special tokens only: nearly every character comes in parts."""
    ids = data.draw(st.lists(st.integers(0, LAST_BYTE_ID), max_size=30))
    assert_streams(byte_level, ids, data.draw(st.integers(0, len(ids))))


@settings(max_examples=examples(300))
@given(data=st.data())
def test_random_pieces_join_to_their_text(byte_fallback: Tokenizer, data: st.DataObject) -> None:
    """Byte-fallback runs, valid or not, interrupted by special tokens or not."""
    most = byte_fallback.vocab_size - 1
    ids = data.draw(st.lists(st.one_of(st.integers(0, most), st.integers(0, 270)), max_size=30))
    assert_streams(byte_fallback, ids, 0)


@pytest.mark.parametrize("text", MIXED)
def test_every_split_of_a_text_continues_the_prompt(byte_level: Tokenizer, byte_fallback: Tokenizer, text: str) -> None:
    """The first answered token keeps its leading space, wherever the prompt ends."""
    for tokenizer in (byte_level, byte_fallback):
        ids = tokenizer.encode(text)
        for split in range(len(ids) + 1):
            if HALF not in tokenizer.decode(ids[:split]):
                printed = "".join(pieces(tokenizer, ids[split:], ids[:split]))
                assert tokenizer.decode(ids[:split]) + printed == tokenizer.decode(ids)


def test_character_is_printed_with_its_last_byte(byte_level: Tokenizer) -> None:
    """Nothing is printed for the first parts of a character, and all of it as soon as it is whole."""
    ids = byte_level.encode("a👍🏽b")
    printed = pieces(byte_level, ids, [])
    assert "".join(printed) == "a👍🏽b"
    assert "👍" in printed
    assert printed[-1] == ""


def test_words_are_printed_at_once(byte_level: Tokenizer, byte_fallback: Tokenizer) -> None:
    """Ordinary text is never held back."""
    for tokenizer in (byte_level, byte_fallback):
        ids = tokenizer.encode("the option string of the parser", add_special_tokens=False)
        *printed, last = pieces(tokenizer, ids, [])
        assert all(printed)
        assert last == ""


def test_half_a_character_at_the_end_is_shown_as_such(byte_level: Tokenizer) -> None:
    """An answer that stops in the middle of a character ends as `decode` ends."""
    ids = byte_level.encode("👍")[:-1]
    assert pieces(byte_level, ids, [])[-1] == byte_level.decode(ids) == HALF


def test_window_does_not_grow_with_the_answer(byte_level: Tokenizer) -> None:
    """Each token costs the same, in any script and after any number of special tokens."""
    ids = byte_level.encode("你好，世界 👍🏽 and words. " * 50) + [2] * 200
    detokenizer = IncrementalDetokenizer(byte_level)
    longest = 0
    for token_id in ids:
        detokenizer.push(token_id)
        longest = max(longest, len(detokenizer._window))
    assert longest <= 16


def test_nothing_follows_the_end(byte_level: Tokenizer) -> None:
    """A token after finish() is a bug of the caller."""
    detokenizer = IncrementalDetokenizer(byte_level)
    detokenizer.finish()
    with pytest.raises(InternalError):
        detokenizer.push(5)
