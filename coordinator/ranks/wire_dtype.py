"""How rounds' numbers may travel, by the names of `--wire-dtype`."""

from __future__ import annotations

from common.errors import InputError
from common.weights.slice_format import ITEM_BYTES

WIRE_DTYPES = ("float32", "bfloat16")


def wire_item_bytes(name: str) -> int:
    """Return the bytes of one number on the wire. Raises: InputError: numbers do not travel so."""
    if name not in WIRE_DTYPES:
        raise InputError(f"--wire-dtype is '{name}'; use {', '.join(WIRE_DTYPES)}")
    return ITEM_BYTES[name]
