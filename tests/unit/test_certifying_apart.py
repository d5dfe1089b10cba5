"""Does a process that ends sign as this one would, and is what goes wrong there told as what it is?

Covers: common/trust/certifying_apart.py. Does not cover: what is signed (test_certificates.py), who may have it.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from common.errors import InputError, ResourceError
from common.trust.certificates import COORDINATOR, NODE, PeerName, check_pair, lifetime_of, mesh_of, peer_of
from common.trust.certifying_apart import CertifyingApart, CertifyingHere
from common.trust.signing import keyed_request

WHERE = [CertifyingHere(), CertifyingApart()]
KITCHEN = PeerName(mesh="home", role=NODE, name="kitchen")


@pytest.mark.parametrize("certifying", WHERE, ids=["here", "apart"])
def test_a_mesh_is_signed_for(certifying: CertifyingHere) -> None:
    """Its authority, its coordinator, a device; a request's key has the same hash here and there."""
    authority = certifying.authority("home")
    check_pair(authority)
    assert mesh_of(authority.certificate) == "home"
    own = certifying.own(authority, PeerName(mesh="home", role=COORDINATOR, name="home"))
    check_pair(own)
    assert peer_of(own.certificate).role == COORDINATOR
    request = keyed_request().request
    made = certifying.certify(authority, request, KITCHEN, timedelta(days=3))
    assert peer_of(made.certificate) == KITCHEN
    begins, ends = lifetime_of(made.certificate)
    assert timedelta(days=3) <= ends - begins <= timedelta(days=4)
    assert {one.certify(authority, request, KITCHEN).key_hash for one in WHERE} == {made.key_hash}


@pytest.mark.parametrize("certifying", WHERE, ids=["here", "apart"])
@pytest.mark.parametrize("request_text", [b"", b"\xff\0", b"-----BEGIN CERTIFICATE REQUEST-----\n"])
def test_a_request_that_is_none_is_refused(certifying: CertifyingHere, request_text: bytes) -> None:
    """By the same error as here: what a stranger sends is his mistake."""
    authority = WHERE[0].authority("home")
    with pytest.raises(InputError, match="certificate request"):
        certifying.certify(authority, request_text, KITCHEN)


def test_a_process_that_cannot_sign_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that is killed for memory, and one that cannot even start: try again, and nothing is lost."""
    authority = WHERE[0].authority("home")
    for program in ("/bin/false", str(tmp_path / "none")):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(ResourceError, match="could not be signed"):
            CertifyingApart().own(authority, KITCHEN)
