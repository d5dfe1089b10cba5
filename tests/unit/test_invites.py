"""Which tokens can still be used, by which device, and are they remembered?"""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InputError, NameTaken, NotTrusted, ResourceError, TokenRefused
from coordinator.membership.book import MAX_INVITE_SECONDS
from coordinator.membership.invites import MAX_OPEN
from tests.support.kept_mesh import Clock, KeptMesh


@pytest.fixture
def mesh(tmp_path: Path) -> KeptMesh:
    """Return a mesh of one node, kitchen, that was seen."""
    made = KeptMesh(tmp_path)
    made.let_in("kitchen", "a1")
    made.members.check("kitchen", "a1")
    return made


def test_a_token_is_good_once_and_until_it_expires(mesh: KeptMesh) -> None:
    """And nobody learns which of the two it was."""
    first, second = mesh.invites.make(60), mesh.invites.make(60)
    mesh.let_in("attic", "b2", secret=first)
    mesh.members.check("attic", "b2")
    mesh.clock.now += 61
    assert not mesh.invites.any_open
    for secret in (first, second, b"", b"x" * 16):
        for ask in (mesh.members.check_token, lambda secret: mesh.let_in("cellar", "c3", secret=secret)):
            with pytest.raises(TokenRefused, match="make another"):
                ask(secret)


def test_a_join_is_repeated_with_the_same_token_and_key_until_its_device_is_seen(
    mesh: KeptMesh, tmp_path: Path
) -> None:
    """It gets the same certificate, also from a coordinator that was started again; nobody else gets one by it."""
    secret = mesh.invites.make(60)
    assert mesh.let_in("attic", "b2", "mine", secret=secret) == "b2"
    again = KeptMesh(tmp_path)
    assert again.let_in("attic", "c3", "mine", secret=secret) == "b2"
    assert again.invites.any_open
    with pytest.raises(TokenRefused, match="by another device"):
        again.let_in("attic", "d4", "a stranger's", secret=secret)
    with pytest.raises(TokenRefused, match="by another device"):
        again.let_in("cellar", "d4", "a stranger's", secret=secret)
    with pytest.raises(InputError, match="as attic; repeat it with --name attic"):
        again.let_in("cellar", "d4", "mine", secret=secret)
    again.members.check("attic", "b2")
    for mesh_now in (again, KeptMesh(tmp_path)):
        assert not mesh_now.invites.any_open
        with pytest.raises(TokenRefused, match="used already"):
            mesh_now.let_in("attic", "e5", "mine", secret=secret)
    assert [(member.name, member.serials) for member in again.members.all()] == [
        ("attic", ("b2",)), ("kitchen", ("a1",)),
    ]  # fmt: skip


def test_a_device_whose_token_has_expired_meanwhile_joins_with_another_one(mesh: KeptMesh) -> None:
    """Under the name that it never used; another device does not get that name, nor does one that was seen lose it."""
    secret = mesh.invites.make(60)
    mesh.let_in("attic", "b2", "mine", secret=secret)
    mesh.clock.now += 61
    assert not mesh.invites.any_open
    with pytest.raises(TokenRefused):
        mesh.let_in("attic", "b2", "mine", secret=secret)
    with pytest.raises(NameTaken):
        mesh.let_in("attic", "c3", "a stranger's")
    assert mesh.let_in("attic", "c3", "mine") == "c3"
    with pytest.raises(NotTrusted):
        mesh.members.check("attic", "b2")
    assert mesh.members.check("attic", "c3").serials == ("c3",)
    with pytest.raises(NameTaken):
        mesh.let_in("attic", "d4", "mine")


def test_a_device_that_was_removed_does_not_come_back_with_its_token(mesh: KeptMesh, tmp_path: Path) -> None:
    """However it asks, and whoever has been started again."""
    secret = mesh.invites.make(60)
    mesh.let_in("attic", "b2", "mine", secret=secret)
    mesh.members.remove("attic")
    for mesh_now in (mesh, KeptMesh(tmp_path)):
        with pytest.raises(TokenRefused):
            mesh_now.let_in("attic", "c3", "mine", secret=secret)
        with pytest.raises(NotTrusted):
            mesh_now.members.check("attic", "b2")


def test_open_tokens_outlive_a_restart_and_no_longer_than_they_were_made_for(mesh: KeptMesh, tmp_path: Path) -> None:
    """Also when the clock was set back by years meanwhile."""
    secret = mesh.invites.make(60)
    clock = Clock()
    clock.now = mesh.clock.now + 50
    KeptMesh(tmp_path, clock).members.check_token(secret)
    clock.now += 11
    with pytest.raises(TokenRefused):
        KeptMesh(tmp_path, clock).members.check_token(secret)
    clock.now = -1e9
    again = KeptMesh(tmp_path, clock)
    clock.now += MAX_INVITE_SECONDS + 1
    assert not again.invites.any_open


def test_a_token_that_nobody_has_heard_of_is_taken_back(mesh: KeptMesh, tmp_path: Path) -> None:
    """Here and after a restart."""
    secret = mesh.invites.make(60)
    mesh.invites.take_back(secret)
    for mesh_now in (mesh, KeptMesh(tmp_path)):
        with pytest.raises(TokenRefused):
            mesh_now.members.check_token(secret)


def test_tokens_have_limits(mesh: KeptMesh) -> None:
    """On how long, and on how many."""
    for seconds in (0, -1, MAX_INVITE_SECONDS + 1):
        with pytest.raises(InputError):
            mesh.invites.make(seconds)
    for _ in range(MAX_OPEN):
        mesh.invites.make(60)
    with pytest.raises(ResourceError):
        mesh.invites.make(60)


def test_a_clock_that_was_set_back_gives_a_token_no_more_than_it_had_left(mesh: KeptMesh, tmp_path: Path) -> None:
    """As on a board without a battery, whose clock begins an hour ago."""
    secret = mesh.invites.make(60)
    clock = Clock()
    clock.now = mesh.clock.now - 3600
    again = KeptMesh(tmp_path, clock)
    again.members.check_token(secret)
    clock.now += 61
    with pytest.raises(TokenRefused):
        again.members.check_token(secret)
