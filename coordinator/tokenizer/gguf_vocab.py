"""Builds a tokenizer out of the vocabulary in a GGUF file's metadata.

Covers: byte-level BPE (`gpt2`) with the pre-tokenizers of the families we run, sentencepiece BPE (`llama`).
Does not cover: reading the file (coordinator/checkpoints/gguf_file.py); other kinds of vocabulary are refused by name.
Source: llama.cpp's vocabulary loader for the meaning of the keys and the split patterns; each family's own
tokenizer.json for what that loader leaves out (Qwen normalizes to NFC).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

from common.errors import CheckpointError, UnsupportedModel
from coordinator.checkpoints.gguf_file import read_gguf_header
from coordinator.tokenizer.sentencepiece_pipeline import llama_pipeline, merges_of
from coordinator.tokenizer.text_tokenizer import TextTokenizer, add_ends

CONTROL, USER_DEFINED = 3, 4
"""Token types: never part of a text; part of it, but never cut or merged."""
SPECIAL_KEYS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")

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
BYTE_LEVEL_RULES = {
    "default": ByteLevelRules(),
    "gpt-2": ByteLevelRules(),
    "smollm": ByteLevelRules(single_digits=True),
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "tekken": ByteLevelRules(split=TEKKEN_SPLIT + LINES_AND_SPACES, whole_words=True, adds_bos=True),
}
"""By tokenizer.ggml.pre."""


def load_gguf_tokenizer(path: Path) -> TextTokenizer:
    """Read the tokenizer of one GGUF file.

    Raises:
        CheckpointError: not a GGUF file, no vocabulary in it, or one that contradicts itself.
        UnsupportedModel: an unknown tokenizer.ggml.model or tokenizer.ggml.pre, by name.
    """
    vocabulary = GgufVocabulary(read_gguf_header(path).metadata, path)
    pipeline, adds_bos = vocabulary.pipeline()
    special_ids = {name: vocabulary.token_id(key) for name, key in SPECIAL_KEYS.items()}
    special_tokens = {name: vocabulary.tokens[i] for name, i in special_ids.items() if i is not None}
    pipeline.add_tokens(vocabulary.added_tokens(special_tokens.values()))
    ends: dict[str, tuple[str, int] | None] = {"bos": None, "eos": None}
    for end, default in (("bos", adds_bos), ("eos", False)):
        token_id = special_ids[f"{end}_token"]
        if vocabulary.flag(f"add_{end}_token", default) and token_id is not None:
            ends[end] = (vocabulary.tokens[token_id], token_id)
    add_ends(pipeline, bos=ends["bos"], eos=ends["eos"])
    template = vocabulary.value("tokenizer.chat_template", str, None)
    return TextTokenizer(
        pipeline,
        bos_id=special_ids["bos_token"],
        eos_ids=frozenset(i for i in map(vocabulary.token_id, END_KEYS) if i is not None),
        chat_template=template,
        special_tokens=special_tokens,
        source=str(path),
    )


class GgufVocabulary:
    """The tokenizer.* keys of one file, checked as they are read."""

    def __init__(self, metadata: dict[str, Any], path: Path) -> None:
        self._metadata = metadata
        self._path = path
        self.tokens: list[str] = self._strings("tokens")
        self.vocab = {token: i for i, token in enumerate(self.tokens)}
        if len(self.vocab) != len(self.tokens):
            raise self._bad("the vocabulary lists the same token twice")
        types = self.value("tokenizer.ggml.token_type", list, None)
        self._types: Sequence[int] = [1] * len(self.tokens) if types is None else types
        if len(self._types) != len(self.tokens):
            raise self._bad(f"{len(self._types)} token types for {len(self.tokens)} tokens")

    def pipeline(self) -> tuple[Pipeline, bool]:
        """Return the pipeline without special tokens, and whether such a model's texts begin with BOS."""
        model = self.value("tokenizer.ggml.model", str, "")
        if model == "gpt2":
            rules = self._byte_level_rules()
            return self._byte_level_pipeline(rules), rules.adds_bos
        if model == "llama":
            return self._sentencepiece_pipeline(), True
        raise UnsupportedModel(f"tokenizer.ggml.model '{model}' in '{self._path}' is not supported; known: gpt2, llama")

    def token_id(self, key: str) -> int | None:
        """Return the id under tokenizer.ggml.`key`; None when the file has none."""
        token_id: int | None = self.value(f"tokenizer.ggml.{key}", int, None)
        if token_id is not None and not 0 <= token_id < len(self.tokens):
            raise self._bad(f"tokenizer.ggml.{key} is {token_id}, but there are {len(self.tokens)} tokens")
        return token_id

    def flag(self, key: str, default: bool) -> bool:
        """Return the truth value under tokenizer.ggml.`key`."""
        return bool(self.value(f"tokenizer.ggml.{key}", bool, default))

    def value(self, key: str, expected_type: type, default: Any) -> Any:
        """Return the value under `key`, which must be of this type where there is one."""
        found = self._metadata.get(key)
        if found is None:
            return default
        if not isinstance(found, expected_type) or isinstance(found, bool) != (expected_type is bool):
            raise self._bad(f"{key} is {type(found).__name__}, not {expected_type.__name__}")
        return found

    def added_tokens(self, named: Any) -> list[AddedToken]:
        """Return the tokens that are found in a text before anything else, in id order."""
        special = set(named)
        added = []
        for token, token_type in zip(self.tokens, self._types, strict=True):
            is_special = token_type == CONTROL or token in special
            if token and (is_special or token_type == USER_DEFINED):
                added.append(AddedToken(token, normalized=False, special=is_special))
        return added

    def _byte_level_rules(self) -> ByteLevelRules:
        name = self.value("tokenizer.ggml.pre", str, None)
        if name in BYTE_LEVEL_RULES:
            return BYTE_LEVEL_RULES[name]
        known = ", ".join(BYTE_LEVEL_RULES)
        what = "tokenizer.ggml.pre is missing" if name is None else f"tokenizer.ggml.pre '{name}' is not supported"
        raise UnsupportedModel(f"{what} in '{self._path}'; known: {known}")

    def _byte_level_pipeline(self, rules: ByteLevelRules) -> Pipeline:
        texts = self._strings("merges")
        try:
            merges = [(left, right) for left, right in (text.split(" ") for text in texts)]
            model = BPE(vocab=self.vocab, merges=merges, ignore_merges=rules.whole_words)
        except Exception as error:  # tokenizers raises nothing narrower.
            raise self._bad(f"the merges do not fit the vocabulary: {error}") from error
        pipeline = Pipeline(model)
        stages: list[Any] = []
        if rules.single_digits:
            stages.append(pre_tokenizers.Digits(individual_digits=True))
        if rules.split is not None:
            stages.append(pre_tokenizers.Split(Regex(rules.split), behavior="isolated"))
        stages.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rules.split is None))
        pipeline.pre_tokenizer = pre_tokenizers.Sequence(stages)
        if rules.nfc:
            pipeline.normalizer = normalizers.NFC()
        pipeline.decoder = decoders.ByteLevel()
        return pipeline

    def _sentencepiece_pipeline(self) -> Pipeline:
        scores = self.value("tokenizer.ggml.scores", list, [])
        if len(scores) != len(self.tokens) or not all(isinstance(s, float) and math.isfinite(s) for s in scores):
            raise self._bad(f"{len(scores)} usable scores for {len(self.tokens)} tokens")
        ranks = {token: (-score, i) for (token, i), score in zip(self.vocab.items(), scores, strict=True)}
        unknown_id = self.token_id("unknown_token_id")
        return llama_pipeline(
            self.vocab,
            merges_of(ranks),
            prefix_space="first" if self.flag("add_space_prefix", True) else "never",
            unk_token=None if unknown_id is None else self.tokens[unknown_id],
        )

    def _strings(self, key: str) -> list[str]:
        found = self.value(f"tokenizer.ggml.{key}", list, [])
        if not found or not all(isinstance(item, str) for item in found):
            raise self._bad(f"tokenizer.ggml.{key} is not a list of texts")
        return list(found)

    def _bad(self, what: str) -> CheckpointError:
        return CheckpointError(f"the tokenizer in '{self._path}' cannot be used: {what}; convert the model again")
