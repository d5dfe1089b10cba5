"""Sizes as people write them: 64MiB, 1.5GB, 700000000. Pure."""

from __future__ import annotations

import re

from common.errors import InputError

_UNITS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")
MAX_BYTES = 1 << 62


def parse_size(text: str, option: str) -> int:
    """Return the bytes that `text` means; `option` is named in the error.

    Raises: InputError: not a size, or none that can be.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise InputError(f"{option} is '{text}'; write bytes or a size such as 64MiB or 1.5GB")
    byte_count = int(float(match.group(1)) * unit) if "." in match.group(1) else int(match.group(1)) * unit
    if not 0 < byte_count <= MAX_BYTES:
        raise InputError(f"{option} is '{text}'; it must be above 0 and fit 62 bits")
    return byte_count


def shown_size(byte_count: float) -> str:
    """Return about how much it is, for tables: 1.1 GB, 270 MB, 3 kB."""
    if byte_count >= 999.5e6:
        return f"{byte_count / 1e9:.1f} GB"
    return f"{byte_count / 1e6:.0f} MB" if byte_count >= 999.5e3 else f"{byte_count / 1e3:.0f} kB"


def format_size(byte_count: int) -> str:
    """Return a size for people, rounded up so that what it says is enough: 617 MB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if byte_count >= 10 * unit or (byte_count >= unit and unit == 10**3):
            return f"{-(-byte_count // unit)}{name}"
    return f"{byte_count}"
