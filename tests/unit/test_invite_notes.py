"""Is whoever invites told why no other device may be able to use the token?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import pytest

from common.trust.certificates import COORDINATOR, PeerName
from common.trust.signing import certify, make_authority, make_key, make_request
from coordinator.membership.invite_notes import invite_notes

NOW = datetime.now(timezone.utc)
AUTHORITY = make_authority("home", now=NOW)
OWN = certify(AUTHORITY, make_request(make_key()), PeerName(mesh="home", role=COORDINATOR, name="home"), now=NOW)


def notes(addresses: Sequence[str], *, without_addresses: bool = False, now: datetime = NOW) -> list[str]:
    """Return what is said of a token of these addresses."""
    return invite_notes(
        addresses, without_addresses=without_addresses, authority=AUTHORITY.certificate, own=OWN, now=now
    )


@pytest.mark.parametrize("without_addresses", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1.2.3"])
def test_an_address_that_every_device_takes_for_itself_is_told(host: str, without_addresses: bool) -> None:
    """With what to start the coordinator with."""
    (said,) = notes([f"{host}:29501"], without_addresses=without_addresses)
    assert said.startswith("no other device can use this token")
    assert "--master-ip 0.0.0.0" in said


def test_looking_around_for_what_is_not_announced_is_told() -> None:
    """Names are not announced; a token that has them is good."""
    assert notes(["desk.example:29501"]) == []
    (said,) = notes(["desk.example:29501"], without_addresses=True)
    assert "without --no-address" in said


@pytest.mark.parametrize("without_addresses", [False, True])
def test_a_token_without_an_address_is_told(without_addresses: bool) -> None:
    """As one is whose coordinator has an address of one link alone."""
    (said,) = notes([], without_addresses=without_addresses)
    assert "finds it by looking around" in said


@pytest.mark.parametrize("without_addresses", [False, True])
def test_an_address_that_others_reach_is_nothing_to_tell(without_addresses: bool) -> None:
    """Also beside one that they do not, and of IPv6."""
    assert notes(["[fd00::7]:29501"], without_addresses=without_addresses) == []
    assert notes(["192.168.1.2:29501"], without_addresses=without_addresses) == []
    assert notes(["127.0.0.1:29501", "192.168.1.2:29501"], without_addresses=without_addresses) == []


def test_a_clock_that_makes_certificates_worthless_is_told() -> None:
    """One that stands before the mesh was made, or after it has ended."""
    (early,) = notes(["192.168.1.2:1"], now=NOW - timedelta(days=400))
    assert "which is before the mesh's certificates begin" in early
    (late,) = notes(["192.168.1.2:1"], now=NOW + timedelta(days=4000))
    assert "the mesh's authority ended" in late
    assert len(notes(["127.0.0.1:1"], now=NOW + timedelta(days=4000))) == 2
