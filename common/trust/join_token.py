"""The one string that lets a device into a mesh: where the coordinator is, which one it is, and a secret. Pure.

Covers: writing it and reading what a person has typed.
Does not cover: whether a secret is good (coordinator/membership/invites.py).

A device that has the token trusts exactly the authority whose SHA-256 stands in it, as k3s's and Docker Swarm's tokens
do; whoever has read it over somebody's shoulder can use it once, and not after it has expired.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import InputError

PREFIX = "shardmesh-"
FORMAT = 1
FINGERPRINT_BYTES, SECRET_BYTES, CHECK_BYTES = 32, 16, 4
MAX_TOKEN_LETTERS = 1000
MAX_ADDRESSES = 8


@dataclass(frozen=True, kw_only=True)
class JoinToken:
    """What a token says."""

    addresses: Sequence[str]
    """host:port of the join service, the likeliest first; none: the device looks around for it."""
    authority_fingerprint: bytes
    """SHA-256 of the authority's certificate."""
    secret: bytes

    @property
    def text(self) -> str:
        """The token as it is typed."""
        content = bytes([FORMAT]) + self.authority_fingerprint + self.secret + ",".join(self.addresses).encode()
        check = hashlib.sha256(content).digest()[:CHECK_BYTES]
        return PREFIX + base64.urlsafe_b64encode(content + check).decode().rstrip("=")


def new_secret() -> bytes:
    """Return a secret that nobody can guess."""
    return secrets.token_bytes(SECRET_BYTES)


def parse_token(text: str) -> JoinToken:
    """Return what a token says. Raises: InputError: it is none, or a letter of it is wrong or missing."""
    text = "".join(text.split())
    if not text.startswith(PREFIX) or len(text) > MAX_TOKEN_LETTERS:
        raise InputError(f"this is no token: one begins with {PREFIX}; `coordinator-cli mesh invite` prints it")
    wrong = InputError("a letter of the token is wrong or missing; copy all of it from `coordinator-cli mesh invite`")
    letters = text[len(PREFIX) :]
    try:
        data = base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise wrong from None
    content, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    fixed_bytes = 1 + FINGERPRINT_BYTES + SECRET_BYTES
    if len(content) < fixed_bytes or hashlib.sha256(content).digest()[:CHECK_BYTES] != check:
        raise wrong
    if content[0] != FORMAT:
        raise InputError(f"the token is of format {content[0]} and this program reads {FORMAT}; use the same version "
                         "of shardmesh on both devices")  # fmt: skip
    try:
        addresses = [address for address in content[fixed_bytes:].decode("ascii").split(",") if address]
    except UnicodeDecodeError:
        raise wrong from None
    return JoinToken(
        addresses=tuple(addresses[:MAX_ADDRESSES]), authority_fingerprint=content[1 : 1 + FINGERPRINT_BYTES],
        secret=content[1 + FINGERPRINT_BYTES : fixed_bytes],
    )  # fmt: skip
