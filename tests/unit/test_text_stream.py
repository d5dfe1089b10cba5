"""Is the text that an answer prints its whole text, cut where the first stop text begins, and nothing else?

Covers: coordinator/answering/text_stream.py for any tokens, half characters among them, and any stop texts.
Does not cover: characters out of a real model's tokens (test_tokenizer_detokenizer.py), who is told that an answer has
stopped (test_answers.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coordinator.answering.text_stream import TextStream

EOS = 9


class Bytes:
    """A tokenizer of a few short texts and halves of one character. See Tokenizer."""

    PIECES = (b"a", b"b", b"ab", b"ba", b"aab", b"c", "é".encode()[:1], "é".encode()[1:], b"", b"</s>")
    bos_id: int | None = None
    eos_ids = frozenset({EOS})
    vocab_size = len(PIECES)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return one token for each letter."""
        return [self.PIECES.index(letter.encode()) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text, special tokens left out."""
        return b"".join(self.PIECES[each] for each in ids if each != EOS).decode(errors="replace")

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return nothing: nobody asks."""
        return ""


def streamed(token_ids: Sequence[int], stop: Sequence[str]) -> tuple[list[str], bool]:
    """Return the pieces of an answer as they come, the rest last, and whether a stop text ended it."""
    stream = TextStream(Bytes(), Bytes().encode("ab"), stop)
    pieces = []
    for token_id in token_ids:
        pieces.append(stream.push(token_id))
        if stream.is_stopped:
            break
    return [*pieces, stream.finish()], stream.is_stopped


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return a text up to the stop text that is complete first, and whether there is one."""
    for end in range(len(text) + 1):
        begins = [end - len(each) for each in stop if text[:end].endswith(each)]
        if begins:
            return text[: min(begins)], True
    return text, False


tokens = st.lists(st.integers(0, len(Bytes.PIECES) - 1), max_size=30)
stops = st.lists(st.text("abcé", min_size=1, max_size=5), max_size=4)


@given(token_ids=tokens, stop=stops)
@example(token_ids=[5, 4], stop=["caab", "a"])  # both are complete with one token
@example(token_ids=[5, 0, 0, 1], stop=["caab", "a"])
def test_pieces_are_the_whole_text_cut_at_the_first_stop_text(token_ids: list[int], stop: list[str]) -> None:
    """However the text is dealt out over tokens: what is complete first counts, and is left out from its beginning."""
    whole, is_stopped = cut(Bytes().decode(token_ids), stop)
    pieces, has_stopped = streamed(token_ids, stop)
    assert ("".join(pieces), has_stopped) == (whole, is_stopped)


@given(token_ids=tokens, stop=stops)
def test_nothing_of_a_stop_text_is_ever_printed(token_ids: list[int], stop: list[str]) -> None:
    """At no time, so that nobody has seen what is taken back: what is printed is always a beginning of the answer."""
    whole, _ = cut(Bytes().decode(token_ids), stop)
    pieces, _ = streamed(token_ids, stop)
    printed = ""
    for piece in pieces:
        printed += piece
        assert whole.startswith(printed)
        assert not any(each in printed for each in stop)


@given(token_ids=tokens, stop=stops)
def test_no_more_is_held_back_than_may_be_the_beginning_of_a_stop_text(token_ids: list[int], stop: list[str]) -> None:
    """A letter that no stop text can begin with, or go on with, is printed with its token."""
    stream = TextStream(Bytes(), Bytes().encode("ab"), stop)
    printed, seen = "", []
    for token_id in token_ids:
        printed += stream.push(token_id)
        seen.append(token_id)
        if stream.is_stopped:
            return
        held = Bytes().decode(seen)[len(printed) :].removesuffix("\N{REPLACEMENT CHARACTER}")
        assert not held or any(each.startswith(held) for each in stop)


@pytest.mark.parametrize("stop", [(), ("x",)])
def test_a_special_token_has_no_text(stop: tuple[str, ...]) -> None:
    """With stop texts and without, what it would be printed as does not show."""
    assert streamed([0, 1, EOS], stop) == (["a", "b", "", ""], False)


def test_half_a_character_at_the_end_is_told_at_the_end() -> None:
    """It is held back while it may become a whole one, and is a replacement character at last."""
    assert streamed([0, 6], ()) == (["a", "", "\N{REPLACEMENT CHARACTER}"], False)
    assert streamed([0, 6, 7], ("éa",)) == (["a", "", "", "é"], False)
