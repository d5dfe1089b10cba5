"""Which tokens of a Hugging Face directory stand outside the text: BOS, EOS, markers of a chat.

Reads what transformers reads: tokenizer_config.json, else the older special_tokens_map.json and added_tokens.json.
Does not cover: the vocabulary (hf_directory.py, sentencepiece_model.py).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Pipeline

from common.errors import CheckpointError
from coordinator.checkpoints.config_values import read_json_object

ADDED_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """What a directory says about tokens outside the text."""

    named: dict[str, AddedToken] = field(default_factory=dict)
    """By role: bos_token, eos_token, ..."""
    extra: tuple[AddedToken, ...] = ()
    """Special, without a role."""
    by_id: dict[int, AddedToken] = field(default_factory=dict)
    """Found whole in a text, special or not."""

    def add_to(self, pipeline: Pipeline) -> None:
        """Make `pipeline` know every token; those it lacks get the next free ids.

        A token's own flag says whether it is printed, but one with a role, where it is listed by id, never is.
        """
        roles = {token.content for token in self.named.values()}
        listed = [self.by_id[i] for i in sorted(self.by_id)]
        tokens = [_special(token) if token.content in roles else token for token in listed]
        known = {token.content for token in pipeline.get_added_tokens_decoder().values()}
        known |= {token.content for token in tokens}
        for token in self.named.values():
            if token.content not in known:
                tokens.append(_special(token))
                known.add(token.content)
        tokens += [token for token in self.extra if token.content not in known]
        pipeline.add_tokens(tokens)

    def never_printed(self) -> SpecialTokens:
        """Return the same tokens; those that are called special are, with no other flag, wherever they are listed."""
        special = {token.content for token in (*self.named.values(), *self.extra)}
        plain = {content: AddedToken(content, special=True, normalized=False) for content in special}
        return replace(self, by_id={i: plain.get(token.content, token) for i, token in self.by_id.items()})

    def found_in_raw_text(self) -> SpecialTokens:
        """Return the same tokens, those by id looked for before a text is normalized."""
        flags = {"normalized": False}
        return replace(self, by_id={i: _with_flags(token, flags) for i, token in self.by_id.items()})

    def texts(self) -> dict[str, str]:
        """Return the token of each role."""
        return {name: token.content for name, token in self.named.items()}


def optional_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one when there is no such file.

    Raises: CheckpointError: not readable, too large, not JSON, not an object.
    """
    return read_json_object(path) if path.is_file() else {}


def read_special_tokens(directory: Path, config: dict[str, Any], defaults: SpecialTokens) -> SpecialTokens:
    """Read the tokens of a directory.

    Args: config: its tokenizer_config.json; defaults: what the vocabulary says, or is assumed, where config is silent.
    Raises: CheckpointError: an entry is not a token.
    """
    try:
        return _read(directory, config, defaults)
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the special tokens in '{directory}' cannot be read: {error}") from error


def _read(directory: Path, config: dict[str, Any], defaults: SpecialTokens) -> SpecialTokens:
    older = {} if "added_tokens_decoder" in config else optional_json_object(directory / "special_tokens_map.json")
    by_id = {int(key): _token(value) for key, value in config.get("added_tokens_decoder", {}).items()}
    named = dict(defaults.named)
    for name, value in (*config.items(), *((k, _special(v) if isinstance(v, dict) else v) for k, v in older.items())):
        if name.endswith("_token") and value is None:
            named.pop(name, None)
        elif name.endswith("_token") and isinstance(value, (str, dict, AddedToken)):
            named[name] = _token(value)
    declared = config.get("extra_special_tokens") or config.get("additional_special_tokens") or defaults.extra
    extra = declared or older.get("extra_special_tokens") or older.get("additional_special_tokens") or ()
    if isinstance(extra, dict):
        named |= {name: _token(value) for name, value in extra.items()}
        extra = ()
    extras = tuple(_token(value) for value in extra)
    if "added_tokens_decoder" not in config:
        special = {token.content for token in [*named.values(), *extras]}
        by_id = _older_added_tokens(directory, special) | defaults.by_id
    by_content = {token.content: token for token in by_id.values()}
    named = {name: by_content.get(token.content, token) for name, token in named.items()}
    return SpecialTokens(named=named, extra=extras, by_id=by_id)


def _older_added_tokens(directory: Path, special: Container[str]) -> dict[int, AddedToken]:
    found = {}
    for content, token_id in optional_json_object(directory / "added_tokens.json").items():
        is_special = content in special
        found[int(token_id)] = AddedToken(content, normalized=not is_special, special=is_special)
    return found


def _token(value: Any) -> AddedToken:
    """Return the token that a JSON value describes: its text, or an object with flags."""
    if isinstance(value, AddedToken):
        return value
    if isinstance(value, str):
        return AddedToken(value, special=True)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise TypeError(f"{str(value)[:80]!r} is not a token")
    return AddedToken(value["content"], **{flag: bool(value[flag]) for flag in ADDED_TOKEN_FLAGS if flag in value})


def _special(value: Any) -> AddedToken:
    """Return the token that a JSON value describes, marked as standing outside the text."""
    return _with_flags(_token(value), {"special": True})


def _with_flags(token: AddedToken, flags: dict[str, bool]) -> AddedToken:
    return AddedToken(token.content, **({flag: getattr(token, flag) for flag in ADDED_TOKEN_FLAGS} | flags))
