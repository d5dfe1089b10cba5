"""Trains the small vocabularies of tests/golden/vocabularies on the source text of a module that every Python has.

    python -m tests.golden.train_vocabularies

They are committed, because another Python's text, or another trainer, makes other ones; then `make golden`.
"""

from __future__ import annotations

import argparse
import inspect
import io

import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.support.tokenizer_files import BYTE_LEVEL, PIECES

CORPUS = [line for line in inspect.getsource(argparse).splitlines() if line.strip()]
SIZE = 1200


def train_pieces(model_type: str) -> bytes:
    """Return a tokenizer.model like Llama 2's: byte fallback, one digit a piece, nothing normalized."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=SIZE,
        model_type=model_type,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["<sep>"],
        minloglevel=2,
    )
    return model.getvalue()


def train_byte_level() -> str:
    """Return a tokenizer.json of byte-level BPE with GPT-2's words and three special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return str(tokenizer.to_str())


if __name__ == "__main__":
    BYTE_LEVEL.parent.mkdir(exist_ok=True)
    BYTE_LEVEL.write_text(train_byte_level(), "utf-8")
    for kind, path in PIECES.items():
        path.write_bytes(train_pieces(kind))
