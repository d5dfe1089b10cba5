"""Do certificates state what the authority decided, whatever was asked for, and is what is none of ours refused?"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from common.errors import InputError, NotTrusted
from common.trust.certificates import (
    COORDINATOR,
    NODE,
    PeerName,
    check_name,
    fingerprint,
    lifetime_of,
    mesh_of,
    peer_from_uri,
    peer_of,
    serial_of,
)
from common.trust.signing import certify, make_authority, make_key, make_request

KITCHEN = PeerName(mesh="home", role=NODE, name="kitchen")


def verify(certificate: bytes, authority: bytes, name: str) -> None:
    """Do as a TLS client does. Raises: VerificationError."""
    store = Store([x509.load_pem_x509_certificate(authority)])
    verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name))
    verifier.verify(x509.load_pem_x509_certificate(certificate), [])


def test_a_certificate_is_good_for_its_name_in_its_mesh_only() -> None:
    """Not for another node's, and not under another authority."""
    authority, other = make_authority("home"), make_authority("home")
    certificate = certify(authority, make_request(make_key()), KITCHEN)
    verify(certificate, authority.certificate, "kitchen.node.shardmesh")
    for wrong in (
        (certificate, other.certificate, KITCHEN.dns),
        (certificate, authority.certificate, "attic.node.shardmesh"),
    ):
        with pytest.raises(VerificationError):
            verify(*wrong)
    assert peer_of(certificate) == KITCHEN
    assert mesh_of(authority.certificate) == "home"
    assert fingerprint(authority.certificate) != fingerprint(other.certificate)
    assert serial_of(certificate) != serial_of(certify(authority, make_request(make_key()), KITCHEN))


def test_a_certificate_ends() -> None:
    """After ninety days unless something else is said; it begins a day early, for clocks that are wrong."""
    now = datetime(2026, 1, 10, tzinfo=timezone.utc)
    certificate = certify(make_authority("home"), make_request(make_key()), KITCHEN, now=now)
    assert lifetime_of(certificate) == (now - timedelta(days=1), now + timedelta(days=90))


def test_a_request_decides_on_nothing_but_its_key() -> None:
    """A name in it is not looked at."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "home.coordinator.shardmesh")])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://home/coordinator/home")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=True)
    pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    assert peer_of(certify(make_authority("home"), pem, KITCHEN)) == KITCHEN


def rsa_request() -> bytes:
    """Return a request of a kind of key that meshes do not use."""
    key = rsa.generate_private_key(65537, 2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def changed_request() -> bytes:
    """Return a request whose signature does not fit."""
    request = x509.load_pem_x509_csr(make_request(make_key()))
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    try:
        return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    except ValueError:
        return b"unreadable"


@pytest.mark.parametrize("request_of", [lambda: b"", lambda: b"-" * 10_000, rsa_request, changed_request])
def test_what_is_no_request_is_refused(request_of) -> None:  # type: ignore[no-untyped-def]
    """Too long, another kind of key, not signed by its key."""
    with pytest.raises(InputError):
        certify(make_authority("home"), request_of(), KITCHEN)


@pytest.mark.parametrize("uri", [
    "", "spiffe://home/node/", "spiffe://home/owner/x", "spiffe://home/node/a/b", "https://home/node/a",
    "spiffe://home/node/a\n", "spiffe://HOME/node/a",
])  # fmt: skip
def test_an_identity_that_is_none_is_refused(uri: str) -> None:
    """Peers are told apart by it and by nothing else."""
    with pytest.raises(NotTrusted):
        peer_from_uri(uri)


def test_an_identity_survives_its_uri() -> None:
    """Both ways."""
    for peer in (KITCHEN, PeerName(mesh="a-1", role=COORDINATOR, name="b")):
        assert peer_from_uri(peer.uri) == peer


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "a" * 41, "../x", "ä", "a\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """It becomes part of files, host names and certificates."""
    with pytest.raises(InputError):
        check_name(name)


@pytest.mark.parametrize("read", [peer_of, mesh_of, serial_of, fingerprint, lifetime_of])
def test_damaged_certificates_are_refused(read) -> None:  # type: ignore[no-untyped-def]
    """With an error of ours."""
    with pytest.raises(NotTrusted):
        read(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_an_authority_is_no_peer() -> None:
    """Its certificate names nobody."""
    with pytest.raises(NotTrusted):
        peer_of(make_authority("home").certificate)
