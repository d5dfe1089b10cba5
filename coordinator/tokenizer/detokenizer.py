"""Turns tokens that arrive one by one into text that can be printed at once.

Never prints half a character: what a later token may still change is held back. All pieces joined are what
`decode` says of all tokens together, to the last character.
Does not cover: the tokens themselves (text_tokenizer.py), when to stop (the engine).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.errors import InternalError
from coordinator.tokenizer.contract import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LONGEST_CHARACTER_BYTES = 4


class IncrementalDetokenizer:
    """One per answer. With `prompt_ids` the answer continues the prompt: a leading space is kept.

    Only a short window of tokens is decoded again for each new one. It begins with tokens whose text is already
    printed: decoders treat the first token of a text specially (they strip its space), and so it is never ours.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int] = ()) -> None:
        self._decode = tokenizer.decode
        # Of byte-fallback tokens: one byte that fits no character turns its whole run into replacement
        # characters. Tokenizers without them lack the attribute.
        self._byte_token_ids: frozenset[int] = getattr(tokenizer, "byte_token_ids", frozenset())
        self._window: list[int] = []
        self._window_text = ""
        self._printed_count = 0
        self._in_byte_run = False
        self._finished = False
        for token_id in _context(prompt_ids, self._decode):
            self.push(token_id)
        # The answer begins where the prompt's last whole character ends.
        self._printed_count = len(self._window_text.rstrip(REPLACEMENT))

    def push(self, token_id: int) -> str:
        """Take the next token and return the text that is now certain, often none."""
        if self._finished:
            raise InternalError("a token arrived after the text was finished")
        text = self._decode([*self._window, token_id])
        is_byte = token_id in self._byte_token_ids
        if text == self._window_text and self._window and not is_byte:
            nothing_held = self._printed_count == len(self._window_text)
            if (nothing_held and self._window_text) or self._in_byte_run:
                return ""  # A special token: decoding leaves it out, and so does the window.
        self._window.append(token_id)
        self._window_text = text
        self._in_byte_run = is_byte
        if is_byte:
            return ""
        # An unfinished character shows as exactly one replacement character, at the very end.
        certain_count = len(text) - text.endswith(REPLACEMENT)
        piece = text[self._printed_count : certain_count]
        self._printed_count = max(self._printed_count, certain_count)
        if self._printed_count == len(text):
            self._shorten_window()
        return piece

    def finish(self) -> str:
        """Return what was still held back; half a character becomes the replacement character."""
        self._finished = True
        piece = self._window_text[self._printed_count :]
        self._printed_count = len(self._window_text)
        return piece

    def _shorten_window(self) -> None:
        """Keep the fewest last tokens that are whole characters by themselves."""
        for token_count in range(1, min(LONGEST_CHARACTER_BYTES, len(self._window) - 1) + 1):
            tail = self._window[-token_count:]
            text = self._decode(tail)
            if text and REPLACEMENT not in text:
                self._window, self._window_text, self._printed_count = tail, text, len(text)
                return


def _context(prompt_ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Sequence[int]:
    """Return the end of the prompt, from the last token that is whole characters by itself."""
    for start in range(len(prompt_ids) - 1, -1, -1):
        text = decode(prompt_ids[start : start + 1])
        if text and REPLACEMENT not in text:
            return prompt_ids[start:]
    return prompt_ids
