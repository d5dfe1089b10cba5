"""Which certificates are good in a mesh, in words that its authority has signed, so that anybody may pass them on.

Covers: the list as bytes, what a signature of them has to be. Does not cover: making the signature (signing.py), who
keeps a list (coordinator/membership/good_list.py, shardnode/membership/known_members.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from common.errors import NotTrusted
from common.trust.libssl import Libssl, libssl

MOST_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class MemberList:
    """One state of a mesh."""

    mesh: str
    number: int
    """The higher one of two is the later state."""
    made_at: int
    """Seconds since 1970 by the coordinator's clock, by which certificates are dated too."""
    members: frozenset[str]
    """Serial numbers of nodes' certificates, in hex."""
    coordinators: frozenset[str]
    """The same of the coordinator's."""
    returned: int = 0
    """When the coordinator that had it signed was brought back from a backup, seconds since 1970; 0: never."""

    @property
    def content(self) -> bytes:
        """What is signed."""
        return json.dumps({
            "mesh": self.mesh, "number": self.number, "made_at": self.made_at, "members": sorted(self.members),
            "coordinators": sorted(self.coordinators), **({"returned": self.returned} if self.returned else {}),
        }).encode("ascii")  # fmt: skip


def believed(content: bytes, signature: bytes, authority: bytes) -> MemberList:
    """Return a list that an authority has signed. Args: authority: its certificate, in PEM.

    Raises: NotTrusted: it has not, or this is no list.
    """
    if len(content) > MOST_BYTES or not _is_signed(content, signature, authority):
        raise NotTrusted("a list of members is not signed by the mesh's authority")
    try:
        said = json.loads(content)
        return MemberList(
            mesh=str(said["mesh"]), number=int(said["number"]), made_at=int(said["made_at"]),
            members=frozenset(map(str, said["members"])), coordinators=frozenset(map(str, said["coordinators"])),
            returned=int(said.get("returned", 0)),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise NotTrusted("a list of members is signed, and cannot be read; is it of a later build?") from error


def _is_signed(content: bytes, signature: bytes, authority: bytes) -> bool:
    found = libssl()
    return _by_library(content, signature, authority) if found is None else _by(found, content, signature, authority)


def _by(found: Libssl, content: bytes, signature: bytes, authority: bytes) -> bool:
    """Ask OpenSSL, which is loaded anyway."""
    memory = found.BIO_new(found.BIO_s_mem())
    context = found.EVP_MD_CTX_new()
    certificate = None
    try:
        found.BIO_write(memory, authority, len(authority))
        certificate = found.PEM_read_bio_X509(memory, None, None, None)
        if not certificate:
            return False
        key = found.X509_get0_pubkey(certificate)
        if found.EVP_DigestVerifyInit(context, None, found.EVP_sha256(), None, key) != 1:
            return False
        return bool(found.EVP_DigestVerify(context, signature, len(signature), content, len(content)) == 1)
    finally:
        found.ERR_clear_error()
        found.X509_free(certificate)
        found.EVP_MD_CTX_free(context)
        found.BIO_free(memory)


def _by_library(content: bytes, signature: bytes, authority: bytes) -> bool:
    """Ask the cryptography package, which takes 10 MB: where this Python has no OpenSSL that can be called."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = x509.load_pem_x509_certificate(authority).public_key()
    try:
        assert isinstance(key, ec.EllipticCurvePublicKey)  # check_pair has seen to it
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
