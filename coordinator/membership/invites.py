"""Tokens that can still be used: each once, until it expires. Only hashes of their secrets are kept.

Covers: making, using up, expiring; tokens end with the coordinator's process. Does not cover: their text
(common/trust/join_token.py). Safe to call from several threads.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

from common.errors import InputError, ResourceError, TokenRefused
from common.trust.join_token import new_secret

MAX_LIFETIME_SECONDS = 24 * 3600
MAX_OPEN = 100


class Invites:
    """The open invitations of one coordinator."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[bytes, float] = {}  # by the secret's SHA-256

    def make(self, lifetime_seconds: int) -> bytes:
        """Return the secret of a new invitation. Raises: InputError: lifetime; ResourceError: too many are open."""
        if not 1 <= lifetime_seconds <= MAX_LIFETIME_SECONDS:
            raise InputError(f"a token for {lifetime_seconds} s; from 1 to {MAX_LIFETIME_SECONDS} are possible")
        secret = new_secret()
        with self._lock:
            self._forget_expired()
            if len(self._ends) >= MAX_OPEN:
                raise ResourceError(f"{MAX_OPEN} tokens are waiting to be used; wait until some have expired")
            self._ends[hashlib.sha256(secret).digest()] = self._clock() + lifetime_seconds
        return secret

    def use(self, secret: bytes) -> None:
        """Use an invitation up. Raises: TokenRefused: it was used, has expired, or there never was one."""
        with self._lock:
            self._forget_expired()
            # A look-up by hash tells an attacker's clock nothing about a secret of 128 bits.
            if self._ends.pop(hashlib.sha256(secret).digest(), None) is None:
                raise TokenRefused("this token was used already, has expired, or was never made here; make another "
                                   "with `coordinator-cli mesh invite`")  # fmt: skip

    def give_back(self, secret: bytes, lifetime_seconds: int = 60) -> None:
        """Make a used invitation good again for a while: what it was used for has failed for another reason."""
        with self._lock:
            self._ends[hashlib.sha256(secret).digest()] = self._clock() + lifetime_seconds

    @property
    def any_open(self) -> bool:
        """Whether some token can still be used."""
        with self._lock:
            self._forget_expired()
            return bool(self._ends)

    def _forget_expired(self) -> None:
        now = self._clock()
        self._ends = {digest: end for digest, end in self._ends.items() if end > now}
