"""Opens a file so that what is read from it does not stay in the page cache.

Linux: O_DIRECT, and where the file system has none (tmpfs before 6.6, some FUSE), ordinary reads whose pages are
given back right after. macOS: F_NOCACHE. Elsewhere: ordinary reads.
Does not cover: when to do so (weights/weight_memory.py), reading itself (weights/reader.py).
Sources: open(2), section O_DIRECT; posix_fadvise(2); fcntl(2) of macOS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from dataclasses import dataclass

BLOCK_BYTES = 4096
"""Addresses, offsets and lengths of direct reads are multiples of this; disks ask for 512 or 4096."""
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_F_NOCACHE = 48  # of <sys/fcntl.h> on macOS


@dataclass(frozen=True, kw_only=True)
class OpenedFile:
    """A descriptor, and what reading it needs."""

    fd: int
    is_direct: bool = False
    """Reads must be made of whole blocks."""
    leaves_pages: bool = False
    """What is read stays in the page cache unless `forget` is called."""


def open_file(path: str | os.PathLike[str], *, bypass_page_cache: bool) -> OpenedFile:
    """Open `path` itself for reading: no symbolic link, and no pipe that could block.

    Raises: OSError: it cannot be opened.
    """
    if bypass_page_cache and hasattr(os, "O_DIRECT"):
        try:
            return OpenedFile(fd=os.open(path, _READ_FLAGS | os.O_DIRECT), is_direct=True)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    fd = os.open(path, _READ_FLAGS)
    if bypass_page_cache and sys.platform == "darwin":
        with contextlib.suppress(OSError):  # a file system that knows no such thing: then with the cache
            fcntl.fcntl(fd, _F_NOCACHE, 1)
        return OpenedFile(fd=fd)
    return OpenedFile(fd=fd, leaves_pages=bypass_page_cache)


def forget(opened: OpenedFile, offset: int, byte_count: int) -> None:
    """Give back the page cache of a range that was read, where reading has left any."""
    if opened.leaves_pages and hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # advice only
            os.posix_fadvise(opened.fd, offset, byte_count, os.POSIX_FADV_DONTNEED)
