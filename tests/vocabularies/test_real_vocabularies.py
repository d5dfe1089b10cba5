"""Real vocabularies, in every form a model may bring them, give the ids and texts that transformers gives.

Does not cover: each option alone, on small vocabularies (tests/unit/test_tokenizer_options.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from coordinator.tokenizer import load_tokenizer
from tests.support.fetched_packages import Unreachable
from tests.support.tokenizer_comparison import differences, stream_differences
from tests.support.vocabulary_variants import CHAT, TEXTS, VARIANTS

LEAST_VARIANTS, TEXT_COUNT = 30, 13


def test_there_are_as_many_tokenizers_and_texts_as_promised() -> None:
    """A bar that is not lowered by and by."""
    assert len(VARIANTS) >= LEAST_VARIANTS
    assert len(TEXTS) == TEXT_COUNT


@pytest.mark.parametrize("name", VARIANTS)
def test_a_real_vocabulary_says_what_transformers_says(name: str, tmp_path: Path, demo_model: Path) -> None:
    """Ids, texts, ends and chats, at once and token by token; where a difference is known, it is that one alone."""
    variant = VARIANTS[name]
    try:
        model, reference = variant.make(tmp_path, demo_model)
    except Unreachable as reason:
        pytest.skip(str(reason))
    ours, theirs = load_tokenizer(model), AutoTokenizer.from_pretrained(str(reference))
    found = {i: lines for i, text in enumerate(TEXTS) if (lines := differences(ours, theirs, [text]))}
    assert [lines for i, lines in found.items() if i not in variant.known] == []
    assert set(found) == variant.known
    assert stream_differences(ours, TEXTS) == []
    assert variant.known or ours.vocab_size == len(theirs)
    assert ours.bos_id == theirs.bos_token_id
    assert ours.eos_ids == ids_of_ends(theirs, variant.ends)
    if theirs.chat_template is not None:
        prompt = theirs.apply_chat_template([*CHAT], tokenize=False, add_generation_prompt=True)
        assert ours.chat_prompt(CHAT) == prompt
        ids = theirs.encode(prompt, add_special_tokens=False)
        assert variant.known or ours.encode(prompt, add_special_tokens=False) == ids


def ids_of_ends(theirs: Any, more: frozenset[str]) -> set[int]:
    """Return the ids of a reference's EOS and of those of `more` that it has."""
    ids = theirs.get_vocab()
    ends = {theirs.eos_token, *more} - {None}
    return {ids[token] for token in ends if token in ids}
