"""Writes a real vocabulary in another form: as a GGUF file, as vocab.json with merges.txt.

Does not cover: fetching it (real_vocabularies.py), which forms tests look at (vocabulary_variants.py).
Source: llama.cpp's converter for the types of tokens and the keys.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from tests.support.tokenizer_files import CONTROL, NORMAL, USER_DEFINED, write_gguf

UNUSED, BYTE = 5, 6
ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def gguf_of_directory(directory: Path, path: Path, pre: str | None, **more: Any) -> Path:
    """Write the vocabulary of a tokenizer.json as a GGUF file.

    Args: pre: tokenizer.ggml.pre of byte-level BPE; None for a sentencepiece vocabulary. more: keys of tokenizer.ggml.
    """
    pipeline, config = read_json(directory / "tokenizer.json"), read_json(directory / "tokenizer_config.json")
    ids = dict(pipeline["model"]["vocab"])
    added = {token["content"]: token for token in pipeline["added_tokens"]}
    ids |= {content: token["id"] for content, token in added.items()}
    words = {i: word for word, i in ids.items()}
    tokens = [words.get(i, f"[PAD{i}]") for i in range(max(words) + 1)]
    types = [_type(token, added.get(token), ids) for token in tokens]
    keys = _keys("llama" if pre is None else "gpt2", tokens, types)
    if pre is None:
        keys |= {"ggml.pre": "default", "ggml.scores": _scores(tokens, pipeline["model"]["merges"])}
    else:
        merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in pipeline["model"]["merges"])
        keys |= {"ggml.pre": pre, "ggml.merges": list(merges)}
    for role, name in ROLES.items():
        token = config.get(name)
        token = token["content"] if isinstance(token, dict) else token
        if token in ids:
            keys[f"ggml.{role}_token_id"] = ids[token]
    keys["ggml.add_bos_token"] = "SpecialToken" in json.dumps(pipeline["post_processor"])
    if config.get("chat_template"):
        keys["chat_template"] = config["chat_template"]
    return write_gguf(path, _changed(keys, more))


def gguf_of_sentencepiece(model: Path, path: Path, **more: Any) -> Path:
    """Write the pieces of a tokenizer.model as a GGUF file; more: keys of tokenizer.ggml, None to leave one out."""
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made at import, by protobuf
    proto.ParseFromString(model.read_bytes())
    keys = _keys("llama", [piece.piece for piece in proto.pieces], [piece.type for piece in proto.pieces])
    keys |= {"ggml.pre": "default", "ggml.scores": [float(piece.score) for piece in proto.pieces]}
    keys |= {"ggml.bos_token_id": 1, "ggml.eos_token_id": 2, "ggml.unknown_token_id": 0}
    return write_gguf(path, _changed(keys, more))


def write_merges(source: Path, directory: Path, config: dict[str, Any]) -> None:
    """Write the words of a byte-level tokenizer.json as vocab.json and merges.txt, and tokenizer_config.json."""
    model = read_json(source / "tokenizer.json")["model"]
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def _keys(model: str, tokens: list[str], types: list[int]) -> dict[str, Any]:
    return {"ggml.model": model, "ggml.tokens": tokens, "ggml.token_type": types}


def _changed(keys: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    changed = keys | {f"ggml.{name}": value for name, value in more.items()}
    return {key: value for key, value in changed.items() if value is not None}


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """Return scores that give these merges: the earlier a piece is made, the higher."""
    made = dict.fromkeys("".join(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges)
    ranks = {piece: float(-i) for i, piece in enumerate(made)}
    return [ranks.get(token, float(-len(ranks))) for token in tokens]


def _type(token: str, added: dict[str, Any] | None, ids: dict[str, int]) -> int:
    if token not in ids:
        return UNUSED
    if added is not None:
        return CONTROL if added["special"] else USER_DEFINED
    return BYTE if len(token) == 6 and token.startswith("<0x") else NORMAL
