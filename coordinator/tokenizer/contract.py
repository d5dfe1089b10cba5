"""What the engine may ask of a tokenizer, whatever file it was made from.

Does not cover: how one is built (hf_directory.py, gguf_vocab.py), text that arrives token by token (detokenizer.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Text to token ids and back, with the model's own special tokens and chat template."""

    @property
    def bos_id(self) -> int | None:
        """What an empty prompt starts from; None when the model has no such token."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every token that ends an answer."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens that have a text; the model's embedding may have more rows than this."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of `text`; with the tokens the model adds by itself (BOS), if it adds any.

        Raises: InputError: the text is not valid Unicode. ModelError: the tokenizer fails on it.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; special tokens and ids without a text count as nothing.

        Raises: ModelError: the tokenizer fails on them.
        """

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the prompt that asks the model for the next message of a conversation.

        The template writes BOS itself, so the result is encoded with `add_special_tokens=False`.

        Raises: InputError: the model has no chat template, or it refuses these messages.
        """
