"""Says where two tokenizers differ, and whether text that comes token by token is the text of all tokens.

Does not cover: making tokenizers (tokenizer_files.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from coordinator.tokenizer import IncrementalDetokenizer, Tokenizer

RANDOM_IDS = 48


def differences(ours: Tokenizer, theirs: Any, texts: Iterable[str]) -> list[str]:
    """Name every text whose ids, with or without special tokens, or whose decoded text differ.

    Args: theirs: a tokenizer of transformers, or what it said of these texts (TheirTokenizer).
    """
    found = []
    for text in texts:
        for special in (True, False):
            ids = theirs.encode(text, add_special_tokens=special)
            if (got := ours.encode(text, add_special_tokens=special)) != ids:
                found.append(f"ids of {text!r}, special tokens {special}: {got[:16]} instead of {ids[:16]}")
            expected = theirs.decode(ids, skip_special_tokens=True)
            if (decoded := ours.decode(ids)) != expected:
                found.append(f"text of {text!r}: {decoded!r} instead of {expected!r}")
    return found


def streamed(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of `ids` as somebody sees it who gets one token after another."""
    detokenizer = IncrementalDetokenizer(tokenizer)
    return "".join([*(detokenizer.push(token_id) for token_id in ids), detokenizer.finish()])


def stream_differences(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """Name every text, and every run of random tokens, that reads differently when it comes token by token."""
    dice = random.Random(13)
    runs = [tokenizer.encode(text) for text in texts]
    runs += [[dice.randrange(tokenizer.vocab_size) for _ in range(RANDOM_IDS)] for _ in range(4)]
    ends = sorted(tokenizer.eos_ids)
    runs += [[token for pair in zip(run, ends * len(run), strict=False) for token in pair] for run in runs[:4]]
    return [f"{ids[:16]}" for ids in runs if streamed(tokenizer, ids) != tokenizer.decode(ids)]
