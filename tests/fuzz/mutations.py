"""Makes hostile inputs out of good ones: bytes flipped, cut, doubled; values of JSON replaced by what nobody expects.

Does not cover: who reads them (readers.py). The same seed makes the same input.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

NUMBERS = (
    0, 1, -1, 2, 7, 255, 256, 65535, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 53, (1 << 63) - 1, 1 << 64,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *NUMBERS, -(1 << 63), 10**400, 0.0, -0.0, 1e308, 1e-320, None, True, False, "", "x", "\0", "../../etc/passwd",
    "a" * 5000, "\ud800", [], {}, [[]], [None], {"": None}, [0] * 300, {str(i): i for i in range(50)},
)  # fmt: skip
MOST_CHANGES = 4


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """Return the bytes with a few changes; of JSON mostly such that it still is JSON."""
    if seed[:1] in (b"{", b"[") and seed[:2] != b"{%" and chance.random() < 0.8:
        with suppress(ValueError):  # it only begins so
            return _mutated_json(seed, chance)
    data = bytearray(seed)
    for _ in range(chance.randint(1, MOST_CHANGES)):
        data = chance.choice(_CHANGES)(data, chance)
    return bytes(data)


def _place(data: bytearray, chance: random.Random) -> int:
    """Return where to change: often in the header, where sizes are."""
    return chance.randrange(min(len(data), chance.choice((64, 1024, 1 << 30)))) if data else 0


def _flip(data: bytearray, chance: random.Random) -> bytearray:
    if data:
        data[_place(data, chance)] ^= 1 << chance.randrange(8)
    return data


def _number(data: bytearray, chance: random.Random) -> bytearray:
    at, size = _place(data, chance), chance.choice((1, 2, 4, 8))
    data[at : at + size] = (chance.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, chance.choice(("little", "big")))
    return data


def _cut(data: bytearray, chance: random.Random) -> bytearray:
    return data[: _place(data, chance)]


def _remove(data: bytearray, chance: random.Random) -> bytearray:
    at = _place(data, chance)
    del data[at : at + chance.randint(1, 64)]
    return data


def _double(data: bytearray, chance: random.Random) -> bytearray:
    at = _place(data, chance)
    piece = data[at : at + chance.randint(1, 256)]
    data[at:at] = piece * chance.randint(1, 8)
    return data


def _noise(data: bytearray, chance: random.Random) -> bytearray:
    at = _place(data, chance)
    data[at : at + chance.randint(1, 32)] = chance.randbytes(chance.randint(1, 32))
    return data


_CHANGES: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (_flip, _number, _cut, _remove, _double, _noise)


def _mutated_json(seed: bytes, chance: random.Random) -> bytes:
    value = json.loads(seed)
    for _ in range(chance.randint(1, MOST_CHANGES)):
        holder, key = _anywhere(value, chance)
        if holder is None:
            break
        action = chance.randrange(5)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, dict):
            holder[chance.choice(list(holder))] = holder[key]
        elif action == 2:
            holder[key] = [holder[key]] * chance.choice((1, 2, 40))
        else:
            holder[key] = deepcopy(chance.choice(VALUES))  # it may be changed in turn
    return json.dumps(value).encode()


def _anywhere(value: Any, chance: random.Random) -> tuple[Any, Any]:
    """Return some list or object within a value, and a key of it; None where it is empty."""
    holder, key = None, None
    while isinstance(value, dict | list) and value:
        holder, key = value, chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        value = value[key]
        if chance.random() < 0.35:
            break
    return holder, key
