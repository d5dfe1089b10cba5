"""Bytes that only who knows a passphrase reads, and that nobody changes unnoticed.

    shardmesh-backup 1\n        what it is, and in which version
    {"n": 32768, ...}\n         how the key is made of the passphrase (scrypt), the salt, the nonce; in hex
    ...                         AES-256-GCM, with all of the above as its associated data

Covers: writing and reading it. Does not cover: what is in it (coordinator/membership/backup.py).
Source: RFC 7914 (scrypt), NIST SP 800-38D (GCM); both by the cryptography package.
"""

from __future__ import annotations

import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from common.errors import InputError

MARK = b"shardmesh-backup "
VERSION = 1
FEWEST_LETTERS = 8
COST, BLOCK_SIZE, PARALLELISM = 1 << 15, 8, 1
"""32 MiB and a tenth of a second for each guess."""
MOST_COST, MOST_BLOCK_SIZE, MOST_PARALLELISM = 1 << 18, 16, 4
"""Of a file that is read: whoever made it must not take this machine's memory."""
MOST_HEADER_BYTES = 1000


def locked(plain: bytes, passphrase: str) -> bytes:
    """Return what only this passphrase opens. Raises: InputError: it is too short to keep anybody out."""
    if len(passphrase) < FEWEST_LETTERS:
        raise InputError(f"the passphrase has {len(passphrase)} letters; take at least {FEWEST_LETTERS}")
    salt, nonce = os.urandom(16), os.urandom(12)
    header = {"n": COST, "r": BLOCK_SIZE, "p": PARALLELISM, "salt": salt.hex(), "nonce": nonce.hex()}
    head = MARK + b"%d\n" % VERSION + json.dumps(header).encode("ascii") + b"\n"
    key = Scrypt(salt=salt, length=32, n=COST, r=BLOCK_SIZE, p=PARALLELISM).derive(passphrase.encode())
    return head + AESGCM(key).encrypt(nonce, plain, head)


def opened(content: bytes, passphrase: str) -> bytes:
    """Return what was locked. Raises: InputError: it is no such file, was changed, or has another passphrase."""
    first, _, rest = content.partition(b"\n")
    if not first.startswith(MARK):
        raise InputError("this is no backup of a mesh; coordinator-cli mesh backup makes one")
    if first != MARK + b"%d" % VERSION:
        raise InputError(f"the backup is of another version than {VERSION}; use the version of shardmesh that made it")
    line, end, encrypted = rest.partition(b"\n")
    try:
        header = json.loads(line[:MOST_HEADER_BYTES])
        cost, block_size, parallelism = int(header["n"]), int(header["r"]), int(header["p"])
        salt, nonce = bytes.fromhex(header["salt"]), bytes.fromhex(header["nonce"])
        if not (1 < cost <= MOST_COST and 1 <= block_size <= MOST_BLOCK_SIZE and 1 <= parallelism <= MOST_PARALLELISM):
            raise ValueError("it asks for too much")
        key = Scrypt(salt=salt, length=32, n=cost, r=block_size, p=parallelism).derive(passphrase.encode())
        return AESGCM(key).decrypt(nonce, encrypted, first + b"\n" + line + end)
    except InvalidTag as error:
        raise InputError("the passphrase is another one, or the backup is damaged") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"the backup is damaged: {error}") from error
