"""The files that prove who a program is: authority, own certificate, own key, in one directory.

Covers: reading them, replacing them so that a crash leaves the old ones, modes. Does not cover: what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, NotTrusted
from common.machine.durable_files import replace_private
from common.trust.certificates import KeyedCertificate, PeerName, check_pair, mesh_of, peer_of

AUTHORITY_FILE = "authority.pem"
KEYED_FILE = "identity.pem"
"""Key and certificate in one file: replaced together or not at all."""
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
    """Write an identity; readable by its user only. Raises: InputError: the directory cannot be written."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private(directory / AUTHORITY_FILE, identity.authority)
        replace_private(directory / KEYED_FILE, identity.own.key + identity.own.certificate)
    except OSError as error:
        raise InputError(f"cannot write {directory}: {error.strerror}; choose another place or its owner") from error


def load_identity(directory: Path) -> Identity:
    """Read an identity.

    Raises: InputError: there is none, or it cannot be read; NotTrusted: it is damaged.
    """
    try:
        authority = (directory / AUTHORITY_FILE).read_bytes()
        keyed = (directory / KEYED_FILE).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the identity in {directory}: {error.strerror}") from error
    key, mark, certificate = keyed.partition(_MARK)
    identity = Identity(authority=authority, own=KeyedCertificate(key=key, certificate=mark + certificate))
    try:
        mesh_of(authority)
        check_pair(identity.own)
    except NotTrusted as error:
        raise NotTrusted(f"the identity in {directory} is damaged ({error}); restore it from a copy, or, on "
                         "a node, remove it and join again") from error  # fmt: skip
    return identity
