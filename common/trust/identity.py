"""The files that prove who a program is: authority, own certificate, own key, in one directory.

Covers: reading them, replacing them so that a crash leaves the old ones, modes; the key that a certificate is asked for
with, stored before it is asked for, so that who did not get the answer asks again with the same one.
Does not cover: what is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import DiskFull, InputError, NotTrusted
from common.machine.durable_files import is_full, replace_private
from common.program.state_files import DAMAGE, is_there, mend_state, read_state, write_state
from common.trust.certificates import (
    KeyedCertificate,
    KeyedRequest,
    PeerName,
    certificates_in,
    check_pair,
    mesh_of,
    peer_of,
)

AUTHORITY_FILE = "authority.pem"
KEYED_FILE = "identity.pem"
"""Key and certificate in one file: replaced together or not at all."""
JOINING_KEY_FILE, RENEWING_KEY_FILE = "joining.key", "renewing.key"
"""The key of a certificate that was asked for and is not stored yet."""
_MARK = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who this program is, and whom it trusts."""

    authority: bytes
    """The authority's certificate, in PEM."""
    own: KeyedCertificate

    @property
    def peer(self) -> PeerName:
        """The name that the certificate states."""
        return peer_of(self.own.certificate)


def save_identity(directory: Path, identity: Identity) -> None:
    """Write an identity; readable by its user only. Raises: DiskFull; InputError: the directory cannot be written."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _authority_in(directory) != identity.authority:
            write_state(directory / AUTHORITY_FILE, identity.authority)
        write_state(directory / KEYED_FILE, identity.own.key + identity.own.certificate)
    except OSError as error:
        raise not_written(directory, error) from error


def stored_request(path: Path, make: Callable[[bytes], KeyedRequest], used: bytes = b"") -> KeyedRequest:
    """Return the key in this file with a request for it; a new key is stored there first if there is none that is good.

    Args: make: gets the key that is kept, or nothing where there is none or it is `used` already, and returns that one
    or a new one with its request (signing.keyed_request, or what signing_apart makes).
    Raises: DiskFull; InputError: it cannot be written; whatever `make` raises.
    """
    kept = _content(path)
    made = make(b"" if kept == used else kept)
    if made.key != kept:
        try:
            replace_private(path, made.key)
        except OSError as error:
            raise not_written(path.parent, error) from error
    return made


def forget_key(path: Path) -> None:
    """Remove a key that was asked with and is stored with its certificate now; one that stays does no harm."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def not_written(directory: Path, error: OSError) -> DiskFull | InputError:
    """Return the error that a person is told."""
    if is_full(error):
        return DiskFull(f"cannot write {directory}: {error.strerror}; make room there and try again")
    return InputError(f"cannot write {directory}: {error.strerror}; choose another place or its owner")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; run as its owner") from error


def keyed_from(content: bytes) -> KeyedCertificate:
    """Return the key and the certificate of a file that has both."""
    key, mark, certificate = content.partition(_MARK)
    return KeyedCertificate(key=key, certificate=mark + certificate)


def has_identity(directory: Path) -> bool:
    """Tell whether there is an identity, good or not."""
    return is_there(directory / KEYED_FILE)


def load_identity(directory: Path) -> Identity:
    """Read an identity.

    Raises: InputError: there is none, or it cannot be read; NotTrusted: it is damaged, and its copy too.
    """
    try:
        authority = read_state(directory / AUTHORITY_FILE, _good_authority)
        own = read_state(directory / KEYED_FILE, good_pair)
    except OSError as error:
        raise InputError(f"cannot read the identity in {directory}: {error.strerror}") from error
    except DAMAGE as error:
        raise NotTrusted(f"the identity in {directory} is damaged, its copy too ({error}); restore it from a backup "
                         "(coordinator-cli mesh restore), or, on a node, remove that directory and join again"
                         ) from error  # fmt: skip
    return Identity(authority=authority, own=own)


def mend_identity(directory: Path) -> None:
    """Have the files of an identity and their copies be whole and alike; for the program whose identity it is.

    Raises: as load_identity, and as save_identity.
    """
    try:
        mend_state(directory / AUTHORITY_FILE, _good_authority)
        mend_state(directory / KEYED_FILE, good_pair)
    except OSError as error:
        raise not_written(directory, error) from error


def _authority_in(directory: Path) -> bytes:
    """Return the authority that is stored whole; nothing where none is."""
    try:
        mend_state(directory / AUTHORITY_FILE, _good_authority)
        return read_state(directory / AUTHORITY_FILE, _good_authority)
    except (FileNotFoundError, *DAMAGE):
        return b""


def _good_authority(content: bytes) -> bytes:
    mesh_of(content)
    certificates_in(content)
    return content


def good_pair(content: bytes) -> KeyedCertificate:
    """Return key and certificate of a file that has both. Raises: NotTrusted: they are damaged, or do not match."""
    keyed = keyed_from(content)
    check_pair(keyed)
    return keyed


def read_pair(path: Path, otherwise: str) -> KeyedCertificate | None:
    """Return what a file has, or its copy; None: there is none. Args: otherwise: what to do beside restoring it.

    Raises: InputError: it cannot be read; NotTrusted: it is damaged, and its copy too.
    """
    try:
        return read_state(path, good_pair)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; run as its owner") from error
    except DAMAGE as error:
        raise NotTrusted(f"{path} is damaged, its copy too ({error}); restore it from a backup, or remove both and "
                         f"{otherwise}") from error  # fmt: skip
