"""Sequences of messages as bytes, and hostile ones made out of good ones, field by field.

Covers: one message or several in a row, each with its length before it; fields of protobuf set to what nobody expects.
Does not cover: changes of plain bytes (mutations.py), who reads them (calls.py, framed.py).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from tests.fuzz.mutations import MOST_CHANGES, NUMBERS, mutated

_LENGTH = struct.Struct(">I")
MOST_MESSAGES = 50
TEXTS = (
    "",
    "x",
    "\0",
    "../../etc/passwd",
    "a" * 5000,
    "\u202e\u0007\n",
    "[fe80::1%eth0]:1",
    "169.254.169.254:80",
    "\U0001f4a5" * 300,
)
REALS = (0.0, -1.0, 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
_WHOLE = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}  # fmt: skip
"""The least and the most of each kind of whole number."""


def joined(messages: Iterable[bytes]) -> bytes:
    """Return messages in a row."""
    return b"".join(_LENGTH.pack(len(message)) + message for message in messages)


def parted(data: bytes) -> list[bytes]:
    """Return the messages of bytes, the last one as long as it is."""
    found: list[bytes] = []
    at = 0
    while at + _LENGTH.size <= len(data) and len(found) < MOST_MESSAGES:
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        found.append(data[at : at + length])
        at += length
    return found


def mutated_messages(of: type[Message]) -> Callable[[bytes, random.Random], bytes]:
    """Return what makes hostile sequences of such messages: mostly such that each still is one."""

    def mutate(seed: bytes, chance: random.Random) -> bytes:
        if chance.random() < 0.2:
            return mutated(seed, chance)
        messages = parted(seed)
        for _ in range(chance.randint(1, MOST_CHANGES)):
            if messages and chance.random() < 0.85:
                at = chance.randrange(len(messages))
                messages[at] = _with_other_fields(messages[at], of, chance)
            else:
                messages = _in_another_order(messages, chance)
        return joined(messages)

    return mutate


def _in_another_order(messages: list[bytes], chance: random.Random) -> list[bytes]:
    if not messages:
        return [chance.randbytes(chance.randint(0, 8))]
    at = chance.randrange(len(messages))
    change = chance.randrange(4)
    if change == 0:
        return messages[:at] + messages[at + 1 :]
    if change == 1:
        return messages[: at + 1] * 2 + messages[at + 1 :]
    if change == 2:
        return chance.sample(messages, len(messages))
    return [*messages[:at], mutated(messages[at], chance), *messages[at + 1 :]]


def _with_other_fields(data: bytes, of: type[Message], chance: random.Random) -> bytes:
    message = of()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return mutated(data, chance)
    _change_a_field(message, chance)
    return message.SerializeToString()


def _change_a_field(message: Message, chance: random.Random) -> None:
    """Change some field, of this message or of one within."""
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = chance.choice([*fields, *(one for one, _ in message.ListFields())])
    if chance.random() < 0.1:
        message.ClearField(field.name)
    elif field.is_repeated:
        _change_several(getattr(message, field.name), field, chance)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _change_a_field(inner, chance)
    else:
        setattr(message, field.name, _value(field, chance, getattr(message, field.name)))


def _change_several(values: Any, field: FieldDescriptor, chance: random.Random) -> None:
    """Change a field that is there more than once: one more, one less, another value."""
    is_message = field.message_type is not None
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return
    action = chance.randrange(4)
    if len(values) and action == 0:
        del values[chance.randrange(len(values))]
    elif len(values) and action == 1:
        values.extend([values[chance.randrange(len(values))]] * chance.choice((1, 2, 300)))
    elif not is_message:
        values.append(_value(field, chance, None))
    elif len(values) and action == 2:
        _change_a_field(values[chance.randrange(len(values))], chance)
    else:
        _change_a_field(values.add(), chance)


def _value(field: FieldDescriptor, chance: random.Random, now: Any) -> Any:
    """Return a value that a field may have and nobody expects."""
    kind = field.cpp_type
    if kind in _WHOLE:
        least, most = _WHOLE[kind]
        chosen = chance.choice(
            (*NUMBERS, *(-number for number in NUMBERS), least, most, (now or 0) + 1, (now or 0) - 1)
        )
        return min(most, max(least, chosen))
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return chance.choice(REALS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return not now
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return chance.choice((0, 1, 2, 3, 77, -1, (1 << 31) - 1))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice((b"", chance.randbytes(32), bytes(1 << 16), mutated(now or b"x", chance)))
    return chance.choice((*TEXTS, (now or "") * 2))
