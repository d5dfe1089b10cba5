"""A tokenizer for random models: byte-level BPE in which every id up to the vocabulary's size is a token.

Covers: tokenizer.json with its configuration and a chat template, and the lists that a GGUF file holds.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
"""Ids 0, 1 and 2."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


_LETTERS = "etaoinshrdlcumwfgypbvkjxqz"  # by how common they are


def byte_vocabulary(vocab_size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the tokens in order of their ids and the merges: specials, 256 bytes, then pairs of letters."""
    byte_tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    merge_count = vocab_size - len(SPECIAL_TOKENS) - len(byte_tokens)
    if not 0 <= merge_count <= 26 * 26:
        raise ValueError(f"a vocabulary of {vocab_size} is not between 259 and 935")
    pairs = ((left, right) for left in _LETTERS for right in _LETTERS)
    merges = list(itertools.islice(pairs, merge_count))
    return [*SPECIAL_TOKENS, *byte_tokens, *(left + right for left, right in merges)], merges


def write_byte_tokenizer(directory: Path, vocab_size: int) -> None:
    """Write tokenizer.json and tokenizer_config.json into `directory`."""
    tokens, merges = byte_vocabulary(vocab_size)
    save_byte_level(directory, tokens, merges, chat_template=CHAT_TEMPLATE)


def save_byte_level(
    directory: Path, tokens: list[str], merges: list[tuple[str, str]], *, chat_template: str | None = None
) -> None:
    """Write a byte-level tokenizer with these tokens, in the order of their ids; the first ones are SPECIAL_TOKENS."""
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": SPECIAL_TOKENS[0],
        "bos_token": SPECIAL_TOKENS[1],
        "eos_token": SPECIAL_TOKENS[2],
        "clean_up_tokenization_spaces": False,
    }
    if chat_template is not None:
        settings["chat_template"] = chat_template
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
