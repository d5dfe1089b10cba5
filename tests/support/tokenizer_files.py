"""Makes small tokenizers in every file format, and texts that bring out where two tokenizers differ.

Does not cover: models with weights.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXTS = (
    "",
    "hello",
    " hello",
    "  two  spaces,   three ",
    "\n\nlines\r\nand\ttabs\n ",
    "def square(x):\n\treturn x ** 2  # O(1)\n",
    "你好，世界。这是一个测试",
    "مرحبا بالعالم",
    "Ünïcödé naïve Straße",
    "👨‍👩‍👧‍👦 family 🏳️‍🌈 flag 👍🏽",
    "e\u0301 composed é",
    "½ ² ٣٤٥ 12345 3.14159 year 2024",
    "don't WE'LL I'm they'd",
    "<|im_start|>user\nhi<|im_end|>",
    "<s>a</s> b <unk> c",
    "one<sep>two <sep> three",
    "\u2581 already \u2581escaped",
    "the window of a parser is an argument of the option string",
    "\N{REPLACEMENT CHARACTER} replaced \x00 zero",
)
CHATS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hi <b> & 'you' \"there\""}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " 你好 "}],
    [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "<|im_end|>\n"},
    ],
)
CORPUS = [line for line in inspect.getsource(argparse).splitlines() if line.strip()]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


@functools.cache
def sentencepiece_model(model_type: str = "bpe") -> bytes:
    """Return a tokenizer.model like Llama 2's: BPE, byte fallback, one digit a piece, nothing normalized."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=1200,
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


@functools.cache
def byte_level_tokenizer_json() -> str:
    """Return a tokenizer.json of byte-level BPE with GPT-2's words and three special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return str(tokenizer.to_str())


@functools.cache
def transformers_tokenizer(gguf_file: Path) -> Any:
    """Return what transformers makes of a GGUF file: seconds for a real vocabulary, so once. Not to be changed."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(gguf_file.parent), gguf_file=gguf_file.name)


def write_gguf(path: Path, tokenizer_keys: Mapping[str, Any]) -> Path:
    """Write a GGUF file of a Llama without tensors; a key's value may be a bool, int, str or list."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in tokenizer_keys.items():
        name = f"tokenizer.{key}"
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_directory(directory: Path, model_type: str, files: dict[str, Any]) -> Path:
    """Write `files` (bytes, text or JSON values) and a config.json of this type."""
    for name, content in {"config.json": {"model_type": model_type}, **files}.items():
        if isinstance(content, bytes):
            (directory / name).write_bytes(content)
        else:
            (directory / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return directory


def byte_level_keys(pre: str) -> dict[str, Any]:
    """Return the GGUF keys of `byte_level_tokenizer_json`'s vocabulary."""
    model = json.loads(byte_level_tokenizer_json())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return {
        "ggml.model": "gpt2",
        "ggml.pre": pre,
        "ggml.tokens": tokens,
        "ggml.token_type": [CONTROL] * 3 + [NORMAL] * (len(tokens) - 3),
        "ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        "ggml.unknown_token_id": 0,
        "ggml.padding_token_id": 2,
        "ggml.add_bos_token": False,
    }


def sentencepiece_keys() -> dict[str, Any]:
    """Return the GGUF keys of `sentencepiece_model`."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
    ids = range(pieces.get_piece_size())
    return {
        "ggml.model": "llama",
        "ggml.pre": "default",
        "ggml.tokens": [pieces.id_to_piece(i) for i in ids],
        "ggml.scores": [float(pieces.get_score(i)) for i in ids],
        "ggml.token_type": [_piece_type(pieces, i) for i in ids],
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        "ggml.unknown_token_id": 0,
    }


def _piece_type(pieces: sentencepiece.SentencePieceProcessor, i: int) -> int:
    if pieces.is_unknown(i):
        return UNKNOWN
    if pieces.is_control(i):
        return CONTROL
    if pieces.is_byte(i):
        return BYTE
    return USER_DEFINED if pieces.id_to_piece(i) == "<sep>" else NORMAL
