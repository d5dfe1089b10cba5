"""Does a caller have the token that lies in this file? One line of text, read again when the file changes.

Covers: who else may read the file, how long a token must be, comparing without telling a clock anything.
Does not cover: tokens that let devices in (join_token.py). Safe to call from several threads.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import stat
from pathlib import Path

from common.errors import InputError, NotTrusted

LEAST_LETTERS = 16
MOST_BYTES = 4096
_SCHEME = "bearer "

log = logging.getLogger(__name__)


class BearerToken:
    """A token in a file."""

    def __init__(self, path: Path) -> None:
        """Read it. Raises: InputError: there is none, or it cannot be used; NotTrusted: others read or change it."""
        self._path = path
        self._digest: bytes | None
        self._digest, self._read_of = _read(path)

    def is_shown(self, authorization: str) -> bool:
        """Tell whether a header `Authorization: Bearer TOKEN` has it."""
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            return False
        given = hashlib.sha256(authorization[len(_SCHEME) :].strip().encode("latin-1", errors="replace")).digest()
        wanted = self._current()
        return wanted is not None and hmac.compare_digest(given, wanted)

    def _current(self) -> bytes | None:
        """Return what a shown token's digest must be; None: its file is gone, or no good, and no token is."""
        try:
            if _state_of(os.stat(self._path)) != self._read_of:
                self._digest, self._read_of = _read(self._path)
                log.info("the token in %s was read again and is good from now on", self._path)
        except (OSError, InputError, NotTrusted) as error:
            if self._digest is not None:
                log.warning("no token is good until its file is: %s", error)
            self._digest, self._read_of = None, ()
        return self._digest


def _read(path: Path) -> tuple[bytes, tuple[int, ...]]:
    """Return the digest of a token, and by what it is known that its file is still the same. Raises: as BearerToken."""
    try:
        # Without waiting: a pipe nobody writes to would hold a start, or a scrape, for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path} is no file; write a token of one line into one")
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise NotTrusted(f"{path} can be read by everybody, or changed by its group; chmod 600 {path}")
    token = text.strip()
    if not LEAST_LETTERS <= len(token) < MOST_BYTES or not all(33 <= letter <= 126 for letter in token):
        raise InputError(f"{path} holds no token: one line of at least {LEAST_LETTERS} letters, digits and marks, such "
                         f"as `openssl rand -hex 32 > {path}` writes")  # fmt: skip
    return hashlib.sha256(token).digest(), _state_of(status)


def _state_of(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)
