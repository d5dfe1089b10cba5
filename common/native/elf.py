"""Is a library's file as long as it says? The system's loader would crash on one that was cut short.

Covers: ELF files of 64 bits. Does not cover: loading (library.py), other formats, which their loaders check.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

HEADER = struct.Struct("<40xQ10xHH2x")
"""Where the table of sections is, which linkers write last, and the size and number of its entries."""


def is_cut_short(path: Path) -> bool:
    """Tell whether the end of an ELF file is missing. Raises: OSError: it cannot be read."""
    with path.open("rb") as file:
        header = file.read(HEADER.size)
        if not header.startswith(b"\x7fELF"):
            return False
        if len(header) < HEADER.size:
            return True
        sections_offset, section_bytes, section_count = HEADER.unpack(header)
        return bool(file.seek(0, os.SEEK_END) < sections_offset + section_bytes * section_count)
