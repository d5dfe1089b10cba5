"""What does a certificate say? Reads the parts of X.509 that we ask for, and refuses what is not written as DER is.

Covers: one certificate in DER: number, life, common name, names of hosts and URIs, kind of key.
Does not cover: who signed it, which TLS has checked wherever a peer is believed; PEM, and what names mean
(certificates.py). Sources: X.690 (DER), RFC 5280.

The cryptography package does more, and stays in memory with 10 MB: a node of a mesh needs this much of it for years.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone

_INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE, _SET = 0x02, 0x03, 0x04, 0x06, 0x30, 0x31
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_STRINGS = {0x0C: "utf-8", 0x13: "ascii"}
_DNS_NAME, _URI = 0x82, 0x86
_COMMON_NAME, _ALTERNATIVE_NAMES = b"\x55\x04\x03", b"\x55\x1d\x11"
_KEY_ID, _ISSUER_KEY_ID, _KEY_ID_OF_ISSUER = b"\x55\x1d\x0e", b"\x55\x1d\x23", 0x80
ELLIPTIC_CURVE = b"\x2a\x86\x48\xce\x3d\x02\x01"
"""The key's kind, as an object identifier."""
_TIMES = {0x17: re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z"),
          0x18: re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")}  # fmt: skip
_MOST_LENGTH_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class CertificateFacts:
    """What one certificate says of itself; believe it only from a peer that TLS has verified, or a file of ours."""

    serial_number: int
    begins: datetime
    ends: datetime
    common_name: str
    """The subject's first; empty: none."""
    dns_names: tuple[str, ...]
    uris: tuple[str, ...]
    key_kind: bytes
    key_id: bytes
    """By which those that it has signed name its key; empty: it has signed none."""
    issuer_key_id: bytes
    """The same of who has signed it; empty: it does not say."""


@dataclass(frozen=True)
class _Element:
    tag: int
    content: bytes

    def within(self, tag: int) -> list[_Element]:
        """Return what it is made of. Raises: ValueError: it is something else."""
        return _elements(_content(self, tag))


def read_certificate(der: bytes) -> CertificateFacts:
    """Return what a certificate says. Raises: ValueError: it is none, or is damaged."""
    (whole,) = _elements(der)
    body, _, signature = whole.within(_SEQUENCE)
    _content(signature, _BITS)
    fields = body.within(_SEQUENCE)
    if fields and fields[0].tag == _VERSION:
        fields = fields[1:]
    number, _, _, life, subject, key, *optional = fields
    serial_number = int.from_bytes(_content(number, _INTEGER), "big", signed=True)
    if serial_number <= 0:
        raise ValueError("a serial number that is none")
    begins, ends = map(_time, life.within(_SEQUENCE))
    extensions = _extensions(optional)
    dns_names, uris = _alternative_names(extensions)
    algorithm, _ = key.within(_SEQUENCE)
    return CertificateFacts(
        serial_number=serial_number, begins=begins, ends=ends, common_name=_common_name(subject), dns_names=dns_names,
        uris=uris, key_kind=_content(algorithm.within(_SEQUENCE)[:1], _OID),
        key_id=b"".join(_content(_elements(value), _OCTETS) for value in extensions.get(_KEY_ID, ())),
        issuer_key_id=b"".join(
            part.content
            for value in extensions.get(_ISSUER_KEY_ID, ())
            for part in _elements(_content(_elements(value), _SEQUENCE))
            if part.tag == _KEY_ID_OF_ISSUER
        ),
    )  # fmt: skip


def _elements(content: bytes) -> list[_Element]:
    """Return the elements that `content` is a row of. Raises: ValueError: it is not, to its last byte."""
    found, at = [], 0
    while at < len(content):
        if content[at] & 0x1F == 0x1F or at + 1 == len(content):
            raise ValueError("a tag that no certificate has, or no length")
        tag, length, at = content[at], content[at + 1], at + 2
        if length & 0x80:
            length_bytes = length & 0x7F
            digits = content[at : at + length_bytes]
            length, at = int.from_bytes(digits, "big"), at + length_bytes
            if not 0 < length_bytes == len(digits) <= _MOST_LENGTH_BYTES or not digits[0] or length < 0x80:
                raise ValueError("a length that is not written as DER is")
        if length > len(content) - at:
            raise ValueError("an element that ends after what it is part of")
        found.append(_Element(tag, content[at : at + length]))
        at += length
    return found


def _content(element: _Element | list[_Element], tag: int) -> bytes:
    """Return what is in an element, or in the only one of a list. Raises: ValueError: it is something else."""
    if isinstance(element, list):
        (element,) = element
    if element.tag != tag or (not element.content and tag != _SEQUENCE):
        raise ValueError("something else than is expected here")
    return element.content


def _time(element: _Element) -> datetime:
    pattern = _TIMES.get(element.tag)
    match = None if pattern is None else pattern.fullmatch(element.content)
    if match is None:
        raise ValueError("an instant that is none")
    year, month, day, hour, minute, second = map(int, match.groups())
    if len(match[1]) == 2:
        year += 1900 if year >= 50 else 2000
    return datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)


def _common_name(subject: _Element) -> str:
    for group in subject.within(_SEQUENCE):
        for pair in group.within(_SET):
            kind, value = pair.within(_SEQUENCE)
            if _content(kind, _OID) == _COMMON_NAME:
                return value.content.decode(_STRINGS.get(value.tag, "latin-1"))
    return ""


def _extensions(optional: list[_Element]) -> dict[bytes, list[bytes]]:
    """Return what each extension says, by its kind. Raises: ValueError: it cannot be read, or is there twice."""
    found: dict[bytes, list[bytes]] = {}
    for part in optional:
        if part.tag == _EXTENSIONS:
            (extensions,) = part.within(_EXTENSIONS)
            for extension in extensions.within(_SEQUENCE):
                kind, *_, value = extension.within(_SEQUENCE)
                found.setdefault(_content(kind, _OID), []).append(_content(value, _OCTETS))
    if any(len(found.get(kind, ())) > 1 for kind in (_ALTERNATIVE_NAMES, _KEY_ID, _ISSUER_KEY_ID)):
        raise ValueError("an extension is there twice")
    return found


def _alternative_names(extensions: dict[bytes, list[bytes]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names of hosts, and URIs. Raises: ValueError: the extension cannot be read."""
    names = [name for value in extensions.get(_ALTERNATIVE_NAMES, ()) for name in _one(value).within(_SEQUENCE)]

    def of(tag: int) -> tuple[str, ...]:
        return tuple(name.content.decode("ascii") for name in names if name.tag == tag)

    return of(_DNS_NAME), of(_URI)


def _one(content: bytes) -> _Element:
    (element,) = _elements(content)
    return element
