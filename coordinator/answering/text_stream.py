"""From an answer's tokens to its text, piece by piece: whole characters, nothing of a text that ends it.

Covers: stop texts, held back while they may be about to come. Does not cover: characters out of tokens, and which
tokens have a text (tokenizer/detokenizer.py), ends by token or length (engine/sequence.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.tokenizer import IncrementalDetokenizer, Tokenizer


class TextStream:
    """The text of one answer."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], stop: Sequence[str] = ()) -> None:
        """Args: stop: texts that end the answer before they begin."""
        self._detokenizer = IncrementalDetokenizer(tokenizer, prompt_ids)
        self._stop = stop
        self._held = ""
        self.is_stopped = False
        """Whether a stop text has come; nothing more is to be pushed then."""

    def push(self, token_id: int) -> str:
        """Take the next token and return the text that is now certain, often none."""
        return self._certain(self._detokenizer.push(token_id), is_last=False)

    def finish(self) -> str:
        """Return what was still held back."""
        return "" if self.is_stopped else self._certain(self._detokenizer.finish(), is_last=True)

    def _certain(self, piece: str, *, is_last: bool) -> str:
        if not self._stop:
            return piece
        text = self._held + piece
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stop if stop in text]
        if found:
            self.is_stopped, self._held = True, ""
            _, begin = min(found)  # what is complete first counts, so that tokens' borders do not
            return text[:begin]
        kept = 0 if is_last else max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """Return how many letters at the end of a text may be the beginning of a stop text."""
    most = min(len(text), len(stop) - 1)
    return next((count for count in range(most, 0, -1) if text.endswith(stop[:count])), 0)
