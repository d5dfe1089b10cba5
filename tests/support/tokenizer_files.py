"""Makes small tokenizers in every file format, and texts that bring out where two tokenizers differ.

Does not cover: models with weights.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import sentencepiece

from coordinator.checkpoints.gguf_file import read_gguf_header

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
_TRAINED = Path(__file__).resolve().parent.parent / "golden" / "vocabularies"
BYTE_LEVEL = _TRAINED / "byte_level.json"
PIECES = {kind: _TRAINED / f"pieces_{kind}.model" for kind in ("bpe", "unigram")}
"""Of 1,200 tokens each; tests/golden/train_vocabularies.py has made them."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


@functools.cache
def sentencepiece_model(model_type: str = "bpe") -> bytes:
    """Return a tokenizer.model like Llama 2's: BPE, byte fallback, one digit a piece, nothing normalized."""
    return PIECES[model_type].read_bytes()


@functools.cache
def byte_level_tokenizer_json() -> str:
    """Return a tokenizer.json of byte-level BPE with GPT-2's words and three special tokens."""
    return BYTE_LEVEL.read_text("utf-8")


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


def byte_level_words(path: Path) -> tuple[list[str], list[str]]:
    """Return the tokens and the merges of a GGUF file."""
    metadata = read_gguf_header(path).metadata
    return metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]


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
