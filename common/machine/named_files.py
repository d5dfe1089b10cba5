"""A file for a library that takes only names of files, of what must not lie on a disk any longer than it has to."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def named_file(content: bytes) -> Iterator[str]:
    """Have a file with this content while the context lasts: in memory where the system can, else for its user only."""
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("shardmesh", os.MFD_CLOEXEC), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.NamedTemporaryFile(prefix="shardmesh-") as temporary:  # of mode 0600
        temporary.write(content)
        temporary.flush()
        yield temporary.name
