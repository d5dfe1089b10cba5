"""Typed values out of config.json and GGUF metadata; a value of another type is refused by its key.

Does not cover: which keys there are (config_keys.py), what they mean (model_config.py, gguf_metadata.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from common.errors import CheckpointError

_T = TypeVar("_T")

MAX_JSON_BYTES = 64 << 20
"""Far above any real index; a hostile file must not fill the memory."""


MAX_WHOLE = 1 << 53
"""Whole numbers up to here have an exact float; no count or size of a model comes near it."""


class ConfigValues:
    """A mapping of untrusted values with typed getters; `place` names it in errors."""

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self.values = values
        self.place = place

    def whole(self, key: str, default: int | None = None) -> int:
        """Return a whole number of at least 0; a missing or null one is `default`, or refused without one."""
        value = self.values.get(key)
        if value is None:
            return self._or_refuse(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_WHOLE:
            raise CheckpointError(f"{self.place}: '{key}' is {shown(value)}; a whole number is needed")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """Return a finite number; a missing or null one is `default`, or refused without one."""
        value = self.values.get(key)
        if value is None:
            return self._or_refuse(key, default)
        number = _finite(value)
        if number is None:
            raise CheckpointError(f"{self.place}: '{key}' is {shown(value)}; a number is needed")
        return number

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false; a missing or null one is `default`."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.place}: '{key}' is {shown(value)}; true or false is needed")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text; a missing or null one is `default`, or refused without one."""
        value = self.values.get(key)
        if value is None:
            return self._or_refuse(key, default)
        if not isinstance(value, str):
            raise CheckpointError(f"{self.place}: '{key}' is {shown(value)}; a text is needed")
        return value

    def _or_refuse(self, key: str, default: _T | None) -> _T:
        if default is None:
            raise CheckpointError(f"{self.place}: '{key}' is missing")
        return default


def _finite(value: Any) -> float | None:
    """Return `value` as a float, or None when it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond any float
        return None
    return number if math.isfinite(number) else None


def shown(value: object) -> str:
    """Return `value` as it may stand in one line of an error: quoted, escaped, shortened."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`.

    Raises: CheckpointError: the file cannot be read, is too large, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            body = file.read(MAX_JSON_BYTES + 1)
        if len(body) > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_JSON_BYTES} bytes; it cannot be what its name says")
        value = json.loads(body, parse_constant=_refuse_constant)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")
