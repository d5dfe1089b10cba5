"""Builds a tokenizer out of the vocabulary in a GGUF file's metadata.

Covers: byte-level BPE (`gpt2`) with the pre-tokenizers of the families we run, sentencepiece BPE (`llama`).
Does not cover: reading the file (coordinator/checkpoints/gguf_file.py), which tokens end an answer (gguf_ends.py),
which keys there are (gguf_keys.py); other kinds of vocabulary are refused by name.
Source: llama.cpp's vocabulary loader for the meaning of the keys and the split patterns; each family's own
tokenizer.json for what that loader leaves out (Qwen normalizes to NFC).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, normalizers
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

from common.errors import CheckpointError, UnsupportedModel
from coordinator.checkpoints.gguf_file import read_gguf_header
from coordinator.tokenizer.byte_level_pipeline import LLAMA3, QWEN2, TEKKEN, ByteLevelRules, byte_level_pipeline
from coordinator.tokenizer.gguf_ends import end_ids
from coordinator.tokenizer.gguf_keys import check_gguf_keys, gguf_chat_templates
from coordinator.tokenizer.sentencepiece_pipeline import SPACE, llama_pipeline, merges_of, space_before_a_space
from coordinator.tokenizer.text_tokenizer import TextTokenizer, add_ends

UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 0, 1, 2, 3, 4, 5
"""Token types. Unknown and control: never part of a text. User-defined: part of it, but never cut or merged.
Undefined and unused: llama.cpp gives them no text; converters fill the embedding's last rows with them."""
SPECIAL_KEYS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
SENTENCEPIECE_IDS = {"unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
"""What a sentencepiece vocabulary means that has no such key."""
BYTE_LEVEL_RULES = {
    "default": ByteLevelRules(),
    "gpt-2": ByteLevelRules(),
    "smollm": ByteLevelRules(single_digits=True),
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "tekken": TEKKEN,
}
"""By tokenizer.ggml.pre."""


def load_gguf_tokenizer(path: Path) -> TextTokenizer:
    """Read the tokenizer of one GGUF file.

    Raises:
        CheckpointError: not a GGUF file, no vocabulary in it, or one that contradicts itself.
        UnsupportedModel: an unknown tokenizer.ggml.model or tokenizer.ggml.pre, or another key, by name.
    """
    metadata = read_gguf_header(path).metadata
    vocabulary = GgufVocabulary(metadata, path)
    pipeline, adds_bos = vocabulary.pipeline()
    check_gguf_keys(metadata, path)
    special_ids = {name: vocabulary.token_id(key) for name, key in SPECIAL_KEYS.items()}
    special_tokens = {name: vocabulary.tokens[i] for name, i in special_ids.items() if i is not None}
    ends_answer = end_ids(vocabulary.vocab, vocabulary.token_id)
    hidden = {*special_tokens.values(), *(vocabulary.tokens[i] for i in ends_answer)}
    # Many vocabularies have this tag of HTML as a word among others. It ends an answer, but stands in texts, too.
    pipeline.add_tokens(vocabulary.added_tokens(hidden - ({"</s>"} - set(special_tokens.values()))))
    ends: dict[str, tuple[str, int] | None] = {"bos": None, "eos": None}
    for end, default in (("bos", adds_bos), ("eos", False)):
        token_id = special_ids[f"{end}_token"]
        if vocabulary.flag(f"add_{end}_token", default) and token_id is not None:
            ends[end] = (vocabulary.tokens[token_id], token_id)
    add_ends(pipeline, bos=ends["bos"], eos=ends["eos"])
    chat_templates, silent_ids = gguf_chat_templates(metadata, path), vocabulary.silent_ids()
    # First what goes, then what stays: made among 100,000 texts, one small object keeps a megabyte of their memory.
    del metadata, vocabulary
    return TextTokenizer(
        pipeline,
        bos_id=special_ids["bos_token"],
        eos_ids=ends_answer,
        chat_templates=chat_templates,
        special_tokens=special_tokens,
        source=str(path),
        silent_ids=silent_ids,
    )


class GgufVocabulary:
    """The tokenizer.* keys of one file, checked as they are read."""

    def __init__(self, metadata: dict[str, Any], path: Path) -> None:
        self._metadata = metadata
        self._path = path
        texts = self._strings("tokens")
        self._empty = {i for i, text in enumerate(texts) if not text}
        # No text has this name: a byte-level text has no such character, and no merge of a sentencepiece makes it.
        self.tokens = [text or f"\x00empty {i}" for i, text in enumerate(texts)]
        self.vocab = {token: i for i, token in enumerate(self.tokens)}
        if len(self.vocab) != len(self.tokens):
            raise self._bad("the vocabulary lists the same token twice")
        types = self.value("tokenizer.ggml.token_type", list, None)
        if types is not None and len(types) < len(self.tokens):
            raise self._bad(f"{len(types)} token types for {len(self.tokens)} tokens")
        self._types: Sequence[int] = [NORMAL] * len(self.tokens) if types is None else types[: len(self.tokens)]
        self._model = self.value("tokenizer.ggml.model", str, "")

    def pipeline(self) -> tuple[Pipeline, bool]:
        """Return the pipeline without special tokens, and whether such a model's texts begin with BOS."""
        if self._model == "gpt2":
            rules = self._byte_level_rules()
            return self._byte_level_pipeline(rules), rules.adds_bos
        if self._model == "llama":
            return self._sentencepiece_pipeline(), True
        raise UnsupportedModel(
            f"tokenizer.ggml.model '{self._model}' in '{self._path}' is not supported; known: gpt2, llama"
        )

    def token_id(self, key: str) -> int | None:
        """Return the id under tokenizer.ggml.`key`; None when there is none."""
        token_id: int | None = self.value(f"tokenizer.ggml.{key}", int, None)
        if token_id is None and self._model == "llama":
            token_id = SENTENCEPIECE_IDS.get(key)
            return token_id if token_id is not None and token_id < len(self.tokens) else None
        if token_id is not None and not 0 <= token_id < len(self.tokens):
            if key == "padding_token_id":  # 4294967295, for none, is what some converters write; nothing is padded
                return None
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

    def added_tokens(self, hidden: Collection[str]) -> list[AddedToken]:
        """Return the tokens that are found in a text before anything else, in id order.

        Args: hidden: tokens that are never part of a text, whatever their type.
        """
        added = []
        for token_id, (token, token_type) in enumerate(zip(self.tokens, self._types, strict=True)):
            is_special = token_type in (CONTROL, UNKNOWN) or token in hidden
            if token_id not in self._empty and (is_special or token_type == USER_DEFINED):
                added.append(AddedToken(token, normalized=False, special=is_special))
        return added

    def silent_ids(self) -> frozenset[int]:
        """Return the tokens without a text."""
        unused = {i for i, token_type in enumerate(self._types) if token_type in (UNUSED, UNDEFINED)}
        return frozenset(unused | self._empty)

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
        return byte_level_pipeline(model, rules)

    def _sentencepiece_pipeline(self) -> Pipeline:
        scores = self.value("tokenizer.ggml.scores", list, [])
        if len(scores) < len(self.tokens) or not all(isinstance(s, (float, int)) and math.isfinite(s) for s in scores):
            raise self._bad(f"{len(scores)} usable scores for {len(self.tokens)} tokens")
        ranks = {token: (-scores[i], i) for token, i in self.vocab.items() if i not in self._empty}
        unknown_id = self.token_id("unknown_token_id")
        has_prefix = self.flag("add_space_prefix", True)
        pipeline = llama_pipeline(
            self.vocab,
            merges_of(ranks),
            # As in llama.cpp and in sentencepiece: what follows a special token begins as a text does.
            prefix_space="always" if has_prefix else "never",
            unk_token=None if unknown_id is None else self.tokens[unknown_id],
        )
        if has_prefix:
            pipeline.normalizer = normalizers.Sequence([normalizers.Replace(" ", SPACE), space_before_a_space()])
        return pipeline

    def _strings(self, key: str) -> list[str]:
        found = self.value(f"tokenizer.ggml.{key}", list, [])
        if not found or not all(isinstance(item, str) for item in found):
            raise self._bad(f"tokenizer.ggml.{key} is not a list of texts")
        return list(found)

    def _bad(self, what: str) -> CheckpointError:
        return CheckpointError(f"the tokenizer in '{self._path}' cannot be used: {what}; convert the model again")
