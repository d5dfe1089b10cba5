"""What does a short file of the kernel's say? Read without what Python puts around files: a page asks for dozens.

Covers: reading, once or again and again. Does not cover: what such files mean (free_memory.py, core_wait.py).
"""

from __future__ import annotations

import os
from pathlib import Path


def content_of(path: str | Path, most_bytes: int) -> bytes:
    """Return what a file says, `most_bytes` of it. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, most_bytes)
    finally:
        os.close(descriptor)


class KeptFile:
    """A file that stays open, and says something new each time: to open it takes three times as long as to read it."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: str | Path) -> None:
        """Raises: OSError."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def content(self, most_bytes: int) -> bytes:
        """Return what it says now. Raises: OSError: what it was about is gone, as a thread that has ended."""
        return os.pread(self._descriptor, most_bytes, 0)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):  # it could be opened
            os.close(self._descriptor)
