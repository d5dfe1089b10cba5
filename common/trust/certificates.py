"""The certificates of one mesh: its authority, and one for each program that belongs to it.

Covers: the identity that a certificate states, its life, its number, its fingerprint; whether a key belongs to it.
Does not cover: making them (signing.py), files (identity.py), TLS (tls.py), who is a member
(coordinator/membership/members.py).

An identity is a URI, `spiffe://MESH/ROLE/NAME`, as SPIFFE defines it; peers are told apart by it and by nothing else.
The DNS name `NAME.ROLE.shardmesh` says the same for TLS libraries, which check names and no URIs. One more name is on
the certificates of all who have a metrics page, so that one scrape job can check all of them. Keys are NIST P-256.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from common.errors import InputError, NotTrusted
from common.machine.named_files import named_file
from common.trust.der import ELLIPTIC_CURVE, CertificateFacts, read_certificate

COORDINATOR, NODE, OBSERVER = "coordinator", "node", "observer"
METRICS_NAME = "metrics.shardmesh"
"""What a scrape job expects of any of them (`server_name`). No NAME.ROLE.shardmesh can be the same."""
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
AUTHORITY_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=90)
RENEW_AT = 2 / 3
"""Of a certificate's life: a third of it is left to find the coordinator in."""
SLACK = timedelta(days=1)
"""Clocks of small devices are wrong until they have asked somebody: certificates begin so much earlier."""
MOST_READ = 32
"""Certificates whose facts are remembered: with each heartbeat and each scrape the same few are asked about."""
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


@dataclass(frozen=True, kw_only=True)
class PeerName:
    """Who a certificate was made for."""

    mesh: str
    role: str
    """COORDINATOR or NODE; or OBSERVER, who reads metrics and may call nothing."""
    name: str

    @property
    def uri(self) -> str:
        return f"spiffe://{self.mesh}/{self.role}/{self.name}"

    @property
    def dns(self) -> str:
        """What TLS libraries compare."""
        return f"{self.name}.{self.role}.shardmesh"


@dataclass(frozen=True, kw_only=True)
class KeyedCertificate:
    """A private key and its certificate, both in PEM."""

    key: bytes
    certificate: bytes


@dataclass(frozen=True, kw_only=True)
class KeyedRequest:
    """A private key, and the request that a certificate for it is asked for with, both in PEM."""

    key: bytes
    request: bytes


def check_name(name: str) -> str:
    """Return `name` if a node or a mesh may be called so. Raises: InputError."""
    if not NAME_PATTERN.fullmatch(name):
        raise InputError(f"'{name[:60]}' is no name; use up to 40 of a-z, 0-9 and dashes, such as kitchen or pi-4")
    return name


def mesh_of(authority_certificate: bytes) -> str:
    """Return the name of the mesh that an authority belongs to. Raises: NotTrusted: it is none of ours."""
    name = _facts(authority_certificate).common_name.removeprefix("shardmesh ")
    if not NAME_PATTERN.fullmatch(name):
        raise NotTrusted("the certificate is not that of a mesh's authority")
    return name


def peer_of(certificate: bytes) -> PeerName:
    """Return who a certificate in PEM was made for. Raises: NotTrusted: it states no identity of ours."""
    uris = _facts(certificate).uris
    if len(uris) != 1:
        raise NotTrusted("the peer's certificate names nobody")
    return peer_from_uri(uris[0])


def has_metrics_name(certificate: bytes) -> bool:
    """Tell whether METRICS_NAME is on a certificate; it is not on those of builds that had no such name."""
    return METRICS_NAME in _facts(certificate).dns_names


def peer_from_uri(uri: str) -> PeerName:
    """Return the identity that a URI states. Raises: NotTrusted: it states none of ours."""
    match = re.fullmatch(r"spiffe://([a-z0-9-]+)/(coordinator|node|observer)/([a-z0-9-]+)", uri)
    if not match:
        raise NotTrusted("the peer's certificate is not one of a mesh")
    return PeerName(mesh=match[1], role=match[2], name=match[3])


def check_pair(pair: KeyedCertificate) -> None:
    """Raise NotTrusted unless a key and a certificate can be read and belong together."""
    if _facts(pair.certificate).key_kind != ELLIPTIC_CURVE:
        raise NotTrusted("a certificate is not of the kind that meshes use")
    try:
        with named_file(pair.key + pair.certificate) as name:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(name, password=b"")  # else it would ask a person
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise NotTrusted("a key and its certificate do not belong together") from error
        raise NotTrusted("a private key cannot be read; it is damaged, or no key") from error


def serial_of(certificate: bytes) -> str:
    """Return a certificate's serial number, in hex."""
    return f"{_facts(certificate).serial_number:x}"


def lifetime_of(certificate: bytes) -> tuple[datetime, datetime]:
    """Return when a certificate begins and when it ends."""
    facts = _facts(certificate)
    return facts.begins, facts.ends


def made_at(certificate: bytes) -> datetime:
    """Return when a certificate was made, by the clock of who made it."""
    return lifetime_of(certificate)[0] + SLACK


def needs_renewal(certificate: bytes, now: datetime | None = None) -> bool:
    """Tell whether RENEW_AT of a certificate's life is over, or it has not begun, since a clock was wrong."""
    begins, ends = lifetime_of(certificate)
    now = now or datetime.now(timezone.utc)
    return now < begins or now > begins + (ends - begins) * RENEW_AT


def is_in_time(certificate: bytes, now: datetime | None = None) -> bool:
    """Tell whether a certificate has begun and has not ended, by this device's clock."""
    begins, ends = lifetime_of(certificate)
    return begins <= (now or datetime.now(timezone.utc)) <= ends


def is_signed_by(certificate: bytes, authority: bytes) -> bool:
    """Tell whether a certificate says that this authority's key has signed it; TLS has looked whether that is so."""
    return bool(_facts(authority).key_id) and _facts(certificate).issuer_key_id == _facts(authority).key_id


def certificates_in(bundle: bytes) -> list[bytes]:
    """Return each certificate of a text in PEM. Raises: NotTrusted: one of them is none."""
    found = [match[0] + b"\n" for match in _PEM.finditer(bundle)]
    for one in found:
        _facts(one)
    return found


def fingerprint(certificate: bytes) -> bytes:
    """Return the SHA-256 of a certificate in PEM: 32 bytes."""
    der = _der(certificate)
    _read(der)
    return hashlib.sha256(der).digest()


def to_pem(der: bytes) -> bytes:
    """Return a certificate in PEM. Raises: NotTrusted: it is none."""
    _read(der)
    return ssl.DER_cert_to_PEM_cert(der).encode("ascii")


@functools.lru_cache(MOST_READ)
def _facts(certificate: bytes) -> CertificateFacts:
    return _read(_der(certificate))


def _der(certificate: bytes) -> bytes:
    """Return the first certificate of a text in PEM."""
    match = _PEM.search(certificate)
    try:
        return base64.b64decode(b"".join(match[1].split()), validate=True) if match else b""
    except ValueError:
        return b""


@functools.lru_cache(MOST_READ)
def _read(der: bytes) -> CertificateFacts:
    try:
        return read_certificate(der)
    except ValueError as error:
        raise NotTrusted("a certificate cannot be read; it is damaged, or no certificate") from error
