"""Tokens that can still be used: each for one device, until it expires. Only hashes of their secrets are kept.

Covers: making, taking back, whether any is open. Does not cover: using one (members.py), their text
(common/trust/join_token.py). Safe to call from several threads.
"""

from __future__ import annotations

import hashlib

from common.errors import InputError, ResourceError
from common.trust.join_token import new_secret
from coordinator.membership.book import MAX_INVITE_SECONDS, Book

MAX_OPEN = 100


def hash_of(secret: bytes) -> str:
    """Return what is kept of a secret. A look-up by it tells an attacker's clock nothing about 128 bits."""
    return hashlib.sha256(secret).hexdigest()


class Invites:
    """The open invitations of one mesh; they outlive a coordinator that is started again."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def make(self, lifetime_seconds: int) -> bytes:
        """Return the secret of a new invitation.

        Raises: InputError: lifetime; ResourceError: too many are open, or it cannot be written down.
        """
        if not 1 <= lifetime_seconds <= MAX_INVITE_SECONDS:
            raise InputError(f"a token for {lifetime_seconds} s; from 1 to {MAX_INVITE_SECONDS} are possible")
        secret = new_secret()
        with self._book.lock:
            if len(self._open()) >= MAX_OPEN:
                raise ResourceError(f"{MAX_OPEN} tokens are waiting to be used; wait until some have expired")
            self._book.change(invites={**self._open(), hash_of(secret): self._book.clock() + lifetime_seconds})
        return secret

    def take_back(self, secret: bytes) -> None:
        """Make one worth nothing that nobody has heard of yet."""
        with self._book.lock:
            self._book.note(invites={key: end for key, end in self._open().items() if key != hash_of(secret)})
            self._book.try_to_write()

    @property
    def any_open(self) -> bool:
        """Whether some token can still be used: to join, or to ask again for an answer that was lost."""
        now = self._book.clock()
        kept = self._book.kept
        return bool(self._open()) or any(unseen.invite_ends > now for unseen in kept.unseen.values())

    def _open(self) -> dict[str, float]:
        now = self._book.clock()
        return {key: end for key, end in self._book.kept.invites.items() if end > now}
