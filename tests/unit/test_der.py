"""Is what we read of a certificate what the cryptography package reads, and is anything that is none refused in words?

Covers: certificates of ours and of strangers' makes, bytes lost, added and changed, pairs of key and certificate, and
who asks for a key in a process of its own. Does not cover: what names mean (test_certificates.py).
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from common.errors import NotTrusted, ResourceError
from common.trust import signing_apart
from common.trust.certificates import (
    NODE,
    OBSERVER,
    KeyedCertificate,
    PeerName,
    check_pair,
    fingerprint,
    has_metrics_name,
    to_pem,
)
from common.trust.der import read_certificate
from common.trust.signing import certify, make_authority, make_key, make_request
from common.trust.signing_apart import RequestMaker

KITCHEN = PeerName(mesh="home", role=NODE, name="kitchen")
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM


def stranger(begins: datetime, ends: datetime, common_name: str | None, names: list[x509.GeneralName] | None) -> bytes:
    """Return a certificate in DER as others might make one."""
    key = ec.generate_private_key(ec.SECP384R1())
    named = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    subject = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"), *named])
    made = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends))  # fmt: skip
    if names is not None:
        made = made.add_extension(x509.KeyUsage(True, *[False] * 8), critical=True)
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return made.sign(key, hashes.SHA256()).public_bytes(DER)


def made_by_us() -> bytes:
    """Return a node's certificate in DER."""
    pem = certify(make_authority("home"), make_request(make_key()), KITCHEN)
    return x509.load_pem_x509_certificate(pem).public_bytes(DER)


def certificates() -> list[bytes]:
    """Return certificates in DER: times in both forms, names of each kind, and none."""
    instants = [datetime(year, 2, 28, 23, 59, 58, tzinfo=timezone.utc) for year in (1950, 1999, 2049, 2050, 2300)]
    names = [x509.DNSName("a.example"), x509.UniformResourceIdentifier("spiffe://x/node/y"), x509.DNSName("b" * 130),
             x509.RFC822Name("a@b.example"), x509.DirectoryName(x509.Name([])), x509.RegisteredID(x509.ObjectIdentifier(
                 "1.3.6.1.4.1"))]  # fmt: skip
    authority = make_authority("home", of="observers of ").certificate
    return [
        made_by_us(), x509.load_pem_x509_certificate(authority).public_bytes(DER),
        stranger(instants[0], instants[1], None, None), stranger(instants[1], instants[2], "Zoë & Söhne", names),
        stranger(instants[2], instants[3], "x", names[:1]), stranger(instants[3], instants[4], "y", [names[4]]),
    ]  # fmt: skip


def test_all_of_a_certificate_that_we_read_is_what_the_cryptography_package_reads() -> None:
    """Number, life, name, names, and the certificate itself in PEM."""
    for der in certificates():
        ours, theirs = read_certificate(der), x509.load_der_x509_certificate(der)
        assert ours.serial_number == theirs.serial_number
        assert (ours.begins, ours.ends) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
        assert [ours.common_name] == ([a.value for a in theirs.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
                                      or [""])  # fmt: skip
        try:
            names = theirs.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = x509.SubjectAlternativeName([])
        assert list(ours.dns_names) == names.get_values_for_type(x509.DNSName)
        assert list(ours.uris) == names.get_values_for_type(x509.UniformResourceIdentifier)
        assert to_pem(der) == theirs.public_bytes(PEM)
        assert fingerprint(to_pem(der)) == theirs.fingerprint(hashes.SHA256())


def test_a_certificate_that_is_cut_or_has_more_at_its_end_is_refused() -> None:
    """At every byte: nothing is read past an end, and nothing is left over."""
    der = made_by_us()
    for length in range(len(der)):
        with pytest.raises(NotTrusted):
            to_pem(der[:length])
    with pytest.raises(NotTrusted):
        to_pem(der + b"\0")


def test_a_damaged_certificate_is_read_as_others_read_it_or_is_refused() -> None:
    """Never another error than ours, and never another name than the cryptography package finds in the same bytes."""
    chance, der = random.Random(7), made_by_us()
    for _ in range(4000):
        damaged = bytearray(der)
        for _ in range(chance.choice((1, 1, 2, 8))):
            damaged[chance.randrange(len(der))] = chance.randrange(256)
        try:
            ours = read_certificate(bytes(damaged))
        except ValueError:
            continue
        try:
            theirs = x509.load_der_x509_certificate(bytes(damaged))
            names = theirs.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (
            ValueError,
            x509.InvalidVersion,
            x509.ExtensionNotFound,
            x509.DuplicateExtension,
            x509.UnsupportedGeneralNameType,
        ):
            continue  # they look at more than we do
        assert list(ours.uris) == names.get_values_for_type(x509.UniformResourceIdentifier)
        assert ours.serial_number == theirs.serial_number


@pytest.mark.parametrize("text", [
    b"", b"\0" * 100, b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
    b"-----BEGIN CERTIFICATE-----\n" + b"MIIB" * 9 + b"\n-----END CERTIFICATE-----\n",
])  # fmt: skip
def test_a_text_that_is_no_certificate_is_refused(text: bytes) -> None:
    """With an error of ours."""
    for look in (fingerprint, has_metrics_name, to_pem):
        with pytest.raises(NotTrusted):
            look(text)


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    """Return a private key in PEM."""
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked)


def test_only_a_key_that_belongs_to_its_certificate_passes() -> None:
    """Another one, another kind, one that is locked, damaged, or none; nobody is asked for a password."""
    key, authority = make_key(), make_authority("home")
    certificate = certify(authority, make_request(key), PeerName(mesh="home", role=OBSERVER, name="x"))
    check_pair(KeyedCertificate(key=key, certificate=certificate))
    check_pair(authority)
    locked = pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret")
    for wrong in (make_key(), pem_of(rsa.generate_private_key(65537, 2048)), locked, key[:-60], b"", b"\0"):
        with pytest.raises(NotTrusted, match="key"):
            check_pair(KeyedCertificate(key=wrong, certificate=certificate))


def test_a_key_of_another_process_is_as_good_as_one_of_ours() -> None:
    """It is kept until it is in use, then there is another; a kept key gets its request, a damaged one none."""
    maker, authority = RequestMaker(), make_authority("home")
    first = maker.make(b"")
    certificate = certify(authority, first.request, KITCHEN)
    check_pair(KeyedCertificate(key=first.key, certificate=certificate))
    assert maker.make(b"") == maker.make(first.key) == first
    maker.forget()
    kept = make_key()
    assert maker.make(kept).key == kept
    assert maker.make(b"damaged").key not in (kept, first.key, b"damaged")


def test_who_waits_for_a_key_goes_on_after_a_while_and_finds_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats do not wait for a slow device's new process."""
    maker = RequestMaker()
    with monkeypatch.context() as patched:
        patched.setattr(signing_apart, "WAIT_SECONDS", 0.0)
        with pytest.raises(ResourceError, match="still being made"):
            maker.make(b"")
    assert maker._process is not None
    monkeypatch.setattr(signing_apart, "WAIT_SECONDS", timedelta(seconds=30).total_seconds())
    assert maker.make(b"").key
    maker.close()


def test_a_key_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process, or one that ends without a key."""
    for command in ("/nowhere/python", "/bin/false"):
        monkeypatch.setattr(signing_apart.sys, "executable", command)
        with pytest.raises(ResourceError, match="could not be made"):
            RequestMaker().make(b"")
