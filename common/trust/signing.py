"""Keys, requests and certificates of a mesh are made here, by the cryptography package.

Covers: new keys, requests for a certificate, an authority, what it signs.
Does not cover: what certificates say (certificates.py), which a node looks at for as long as it runs, without this
file: the package stays in memory with 10 MB. Where a program that stays needs a new key, a process of its own makes it
(signing_apart.py).
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import InputError, NotTrusted
from common.trust.certificates import (
    AUTHORITY_LIFETIME,
    LEAF_LIFETIME,
    METRICS_NAME,
    OBSERVER,
    SLACK,
    KeyedCertificate,
    KeyedRequest,
    PeerName,
    check_name,
)

MAX_REQUEST_BYTES = 8192


def make_key() -> bytes:
    """Return a new private key in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signature(key: bytes, content: bytes) -> bytes:
    """Return what shows that the holder of a private key has said this: ECDSA with SHA-256, in DER."""
    return _private(key).sign(content, ec.ECDSA(hashes.SHA256()))


def make_request(key: bytes) -> bytes:
    """Return a PKCS#10 request in PEM for a key; whoever signs it decides on the name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(_private(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def keyed_request(kept: bytes = b"") -> KeyedRequest:
    """Return a key with a request for it: the key that was kept, or a new one if that is empty, or damaged."""
    if kept:
        with suppress(NotTrusted):  # damaged: nobody has a certificate for it that is worth anything
            return KeyedRequest(key=kept, request=make_request(kept))
    key = make_key()
    return KeyedRequest(key=key, request=make_request(key))


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


def check_same_key(authority: KeyedCertificate, certificate: bytes, request: bytes) -> None:
    """Refuse a request that is not signed by the key of a certificate of this authority's, in its time or not.

    Raises: NotTrusted; InputError: as certify.
    """
    key = _requested_key(request)
    try:
        shown = x509.load_pem_x509_certificate(certificate)
        shown.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
        is_same = shown.public_key() == key
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise NotTrusted("the certificate that has ended is not one of this mesh") from error
    if not is_same:
        raise NotTrusted("the request is not signed by the key of the certificate that has ended")


def requested_key_hash(request: bytes) -> str:
    """Return by what a request's key is known again, in whichever request it comes. Raises: InputError: as certify."""
    key = _requested_key(request)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        loaded = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
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
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
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
