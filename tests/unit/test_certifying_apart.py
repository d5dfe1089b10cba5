"""Does a process that ends sign as this one would, and is what goes wrong there told as what it is?

Covers: common/trust/certifying_apart.py. Does not cover: what is signed (test_certificates.py), who may have it.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from common.errors import InputError, ResourceError
from common.trust.certificates import COORDINATOR, NODE, PeerName, check_pair, lifetime_of, mesh_of, peer_of
from common.trust.certifying_apart import CertifyingApart, CertifyingHere
from common.trust.signing import keyed_request
from tests.support.forbidden_calls import can_forbid, interpreter_without_priorities

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


@pytest.mark.skipif(not can_forbid(), reason="the number of the call is not known for this processor")
def test_a_unit_that_forbids_to_change_priorities_has_certificates_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As ours does (deploy/systemd/coordinator.service): who signs gives way where he may."""
    program = interpreter_without_priorities(tmp_path)
    asked = subprocess.run([program, "-c", "import os; os.nice(1)"], capture_output=True, text=True, check=False)
    assert "PermissionError" in asked.stderr
    monkeypatch.setattr(sys, "executable", str(program))
    check_pair(CertifyingApart().authority("home"))


def test_a_process_that_ends_in_error_is_told_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What went wrong is not guessed: its words, or the signal that ended it."""
    program = tmp_path / "python"
    for text, expected in (("echo no entropy >&2; exit 3", "ended with 3: no entropy"), ("kill -9 $$", "signal 9")):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(program))
        with pytest.raises(ResourceError, match=expected):
            CertifyingApart().authority("home")
