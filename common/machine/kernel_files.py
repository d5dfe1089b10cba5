"""What does a short file of the kernel's say? Read without what Python puts around files: a page asks for dozens.

Covers: reading. Does not cover: what such files mean (free_memory.py, core_wait.py).
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
