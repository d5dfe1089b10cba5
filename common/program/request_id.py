"""What is a request called in the logs of all programs: as whoever asks calls it, or a name that is made up.

Covers: which names are taken. Does not cover: how they travel (coordinator/program/generation_service.py; OpenSequence
of protos/shardmesh/v1/shard.proto), entries of logs (logs.py).
"""

from __future__ import annotations

import secrets

from common.errors import InputError

REQUEST_ID_KEY = "shardmesh-request-id"
"""Of gRPC's metadata: a request's, with the name that whoever asks gives it; an answer's, with the name that it has."""
MOST_LETTERS = 64


def new_request_id() -> str:
    """Return a name that no other request has: 16 hexadecimal digits."""
    return secrets.token_hex(8)


def is_request_id(text: str) -> bool:
    """Tell whether a request can be called so: 1 to MOST_LETTERS printable letters of ASCII, no blank at its ends."""
    return 0 < len(text) <= MOST_LETTERS and text.isascii() and text.isprintable() and text == text.strip()


def check_request_id(text: str) -> None:
    """Raise InputError unless a request can be called so."""
    if not is_request_id(text):
        raise InputError(f"--request-id has to be 1 to {MOST_LETTERS} printable letters of ASCII, with no blank at its "
                         "ends")  # fmt: skip


def taken_request_id(text: str) -> str:
    """Return the name that a request gets for the one that somebody gives it: that one, or another if it cannot be."""
    return text if is_request_id(text) else new_request_id()
