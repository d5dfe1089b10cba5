"""Assembles the `tokenizers` pipeline that cuts a text as one family of byte-level BPE does.

Covers: the words of the families we run, before merging; characters that are composed first.
Does not cover: reading vocabulary and merges (gguf_vocab.py, merges_files.py), special tokens.
Source: the split patterns of llama.cpp and of each family's own tokenizer.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LINES_AND_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|"
QWEN2_SPLIT = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN_SPLIT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
)


@dataclass(frozen=True, kw_only=True)
class ByteLevelRules:
    """How one family of byte-level BPE cuts a text before merging."""

    split: str | None = None
    """Pattern of one word; None for GPT-2's own."""
    single_digits: bool = False
    """Every digit is a word."""
    nfc: bool = False
    """Characters are composed first."""
    whole_words: bool = False
    """A word that is a token is taken as it is, whatever its merges say."""
    adds_bos: bool = False
    """What a file means that has no add_bos_token key."""


LLAMA3 = ByteLevelRules(split=LLAMA3_SPLIT + LINES_AND_SPACES, whole_words=True, adds_bos=True)
QWEN2 = ByteLevelRules(split=QWEN2_SPLIT + LINES_AND_SPACES, nfc=True)
TEKKEN = ByteLevelRules(split=TEKKEN_SPLIT + LINES_AND_SPACES, whole_words=True, adds_bos=True)


def byte_level_pipeline(model: BPE, rules: ByteLevelRules, *, prefix_space: bool = False) -> Pipeline:
    """Return a pipeline of this vocabulary.

    Args: prefix_space: a space is put before a text that has none.
    """
    pipeline = Pipeline(model)
    stages: list[Any] = []
    if rules.single_digits:
        stages.append(pre_tokenizers.Digits(individual_digits=True))
    if rules.split is not None:
        stages.append(pre_tokenizers.Split(Regex(rules.split), behavior="isolated"))
    stages.append(pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=rules.split is None))
    pipeline.pre_tokenizer = pre_tokenizers.Sequence(stages)
    if rules.nfc:
        pipeline.normalizer = normalizers.NFC()
    pipeline.decoder = decoders.ByteLevel()
    return pipeline
