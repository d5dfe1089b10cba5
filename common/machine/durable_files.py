"""Files that survive a power cut: what was written is on the disk, and under its name, when these return."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from common.errors import DiskFull, ResourceError


def is_full(error: OSError) -> bool:
    """Tell whether something was not written because there is no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def failure_to_write(error: OSError) -> type[ResourceError]:
    """Return the class of error that a person is told of what this machine could not write."""
    return DiskFull if is_full(error) else ResourceError


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk. Raises: OSError."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_private(path: Path, content: bytes) -> None:
    """Replace a file in one step; only its user may read it, who is the directory's, also when root writes it.

    Raises: OSError: the old one is still there.
    """
    _replace(path, content, 0o600)


def replace_readable(path: Path, content: bytes) -> None:
    """Replace a file in one step; everybody may read it, whatever the umask. Raises: OSError: the old one is there."""
    _replace(path, content, 0o644)


def _replace(path: Path, content: bytes, mode: int) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # of mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:  # a certificate that is renewed by root must not lock the service's user out
                owner = os.stat(path.parent)
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(path.parent)
