"""The certificates of one mesh: its authority, and one for each program that belongs to it.

Covers: making keys, requests and certificates; the identity that a certificate states; fingerprints.
Does not cover: files (identity.py), TLS (tls.py), who is a member (coordinator/membership/members.py).

An identity is a URI, `spiffe://MESH/ROLE/NAME`, as SPIFFE defines it; peers are told apart by it and by nothing else.
The DNS name `NAME.ROLE.shardmesh` says the same for TLS libraries, which check names and no URIs. One more name is on
the certificates of all who have a metrics page, so that one scrape job can check all of them. Keys are NIST P-256.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import InputError, NotTrusted

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
MAX_REQUEST_BYTES = 8192


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


def check_name(name: str) -> str:
    """Return `name` if a node or a mesh may be called so. Raises: InputError."""
    if not NAME_PATTERN.fullmatch(name):
        raise InputError(f"'{name[:60]}' is no name; use up to 40 of a-z, 0-9 and dashes, such as kitchen or pi-4")
    return name


def make_key() -> bytes:
    """Return a new private key in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_request(key: bytes) -> bytes:
    """Return a PKCS#10 request in PEM for a key; whoever signs it decides on the name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(_private(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_authority(mesh: str, now: datetime | None = None, *, of: str = "") -> KeyedCertificate:
    """Return the authority of a new mesh. Args: of: what else it is the authority of: such a one is no mesh's own."""
    key = make_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"shardmesh {of}{check_name(mesh)}")])
    private, now = _private(key), now or datetime.now(timezone.utc)
    certificate = (
        _builder(name, name, private.public_key(), now, AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    return KeyedCertificate(key=key, certificate=certificate.public_bytes(serialization.Encoding.PEM))


def certify(
    authority: KeyedCertificate, request: bytes, peer: PeerName, *, lifetime: timedelta = LEAF_LIFETIME,
    now: datetime | None = None,
) -> bytes:  # fmt: skip
    """Return a certificate in PEM for the key of a request, under the name of `peer`, whatever the request says.

    Raises: InputError: it is no request, is not signed by its key, or has another kind of key.
    """
    public = _requested_key(request)
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signer = _private(authority.key)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, peer.dns)])
    names = [x509.UniformResourceIdentifier(peer.uri), x509.DNSName(peer.dns)]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if peer.role != OBSERVER:  # an observer answers nobody
        names.append(x509.DNSName(METRICS_NAME))
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    certificate = (
        _builder(subject, issuer.subject, public, now or datetime.now(timezone.utc), lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def requested_key_hash(request: bytes) -> str:
    """Return by what a request's key is known again, in whichever request it comes. Raises: InputError: as certify."""
    key = _requested_key(request)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def mesh_of(authority_certificate: bytes) -> str:
    """Return the name of the mesh that an authority belongs to. Raises: NotTrusted: it is none of ours."""
    certificate = _load(authority_certificate)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value).removeprefix("shardmesh ") if names else ""
    if not NAME_PATTERN.fullmatch(name):
        raise NotTrusted("the certificate is not that of a mesh's authority")
    return name


def peer_of(certificate: bytes) -> PeerName:
    """Return who a certificate in PEM was made for. Raises: NotTrusted: it states no identity of ours."""
    names = _names_on(certificate)
    uris = [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise NotTrusted("the peer's certificate names nobody")
    return peer_from_uri(uris[0])


def has_metrics_name(certificate: bytes) -> bool:
    """Tell whether METRICS_NAME is on a certificate; it is not on those of builds that had no such name."""
    names = _names_on(certificate)
    return names is not None and METRICS_NAME in names.get_values_for_type(x509.DNSName)


def peer_from_uri(uri: str) -> PeerName:
    """Return the identity that a URI states. Raises: NotTrusted: it states none of ours."""
    match = re.fullmatch(r"spiffe://([a-z0-9-]+)/(coordinator|node|observer)/([a-z0-9-]+)", uri)
    if not match:
        raise NotTrusted("the peer's certificate is not one of a mesh")
    return PeerName(mesh=match[1], role=match[2], name=match[3])


def check_pair(pair: KeyedCertificate) -> None:
    """Raise NotTrusted unless a key and a certificate can be read and belong together."""
    if _load(pair.certificate).public_key() != _private(pair.key).public_key():
        raise NotTrusted("a key and its certificate do not belong together")


def serial_of(certificate: bytes) -> str:
    """Return a certificate's serial number, in hex."""
    return f"{_load(certificate).serial_number:x}"


def lifetime_of(certificate: bytes) -> tuple[datetime, datetime]:
    """Return when a certificate begins and when it ends."""
    loaded = _load(certificate)
    return loaded.not_valid_before_utc, loaded.not_valid_after_utc


def needs_renewal(certificate: bytes, now: datetime | None = None) -> bool:
    """Tell whether RENEW_AT of a certificate's life is over."""
    begins, ends = lifetime_of(certificate)
    return (now or datetime.now(timezone.utc)) > begins + (ends - begins) * RENEW_AT


def fingerprint(certificate: bytes) -> bytes:
    """Return the SHA-256 of a certificate in PEM: 32 bytes."""
    return hashlib.sha256(_load(certificate).public_bytes(serialization.Encoding.DER)).digest()


def to_pem(der: bytes) -> bytes:
    """Return a certificate in PEM. Raises: NotTrusted: it is none."""
    try:
        return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
    except ValueError as error:
        raise NotTrusted("the peer's certificate cannot be read") from error


def _names_on(certificate: bytes) -> x509.SubjectAlternativeName | None:
    try:
        return _load(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _load(certificate: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise NotTrusted("a certificate cannot be read; it is damaged, or no certificate") from error


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        loaded = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise NotTrusted("a private key cannot be read; it is damaged, or no key") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise NotTrusted("a private key is not of the kind that meshes use")
    return loaded


def _requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    if len(request) > MAX_REQUEST_BYTES:
        raise InputError(f"a certificate request of {len(request)} bytes; at most {MAX_REQUEST_BYTES} are allowed")
    try:
        loaded = x509.load_pem_x509_csr(request)
        key = loaded.public_key()
        is_signed = loaded.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as error:
        raise InputError("the certificate request cannot be read") from error
    if not is_signed or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise InputError("the certificate request is not signed by a key of the kind that meshes use")
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + lifetime)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
