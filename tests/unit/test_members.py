"""Who is a member, with which certificate, and is it remembered?"""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from common.errors import DiskFull, InputError, NameTaken, NoSuchNode, NotTrusted, ResourceError
from coordinator.membership.book import MEMBERS_FILE, Book
from coordinator.membership.members import MAX_MEMBERS, MOST_SERIALS, Members
from tests.support.kept_mesh import PI, Clock, KeptMesh


@pytest.fixture
def mesh(tmp_path: Path) -> KeptMesh:
    """Return a mesh of one node, kitchen, that was seen."""
    made = KeptMesh(tmp_path)
    made.let_in("kitchen", "a1")
    made.members.check("kitchen", "a1")
    return made


@pytest.fixture
def members(mesh: KeptMesh) -> Members:
    """Return its members."""
    return mesh.members


def test_members_are_found_again_after_a_restart(members: Members, tmp_path: Path) -> None:
    """Everything but when they were heard."""
    members.hear("kitchen", "10.0.0.2:50051", PI, 3, "f" * 64)
    (again,) = KeptMesh(tmp_path).members.all()
    assert again == replace(members.get("kitchen"), rank=3)
    assert members.silent_seconds(again) < 0


def test_a_copy_of_a_node_is_refused_while_the_first_one_is_heard(tmp_path: Path) -> None:
    """A slice that is sent to one would be asked of the other. Once the first has gone, it moves."""
    clock = Clock()
    mesh = KeptMesh(tmp_path, clock)
    mesh.let_in("kitchen", "a1")
    members = mesh.members

    def beat(*addresses: str) -> str:
        for address in addresses:
            clock.now += 0.5
            members.hear("kitchen", address, PI, -1, "")
        return members.get("kitchen").address

    assert beat("first:1", "copy:1", "first:1") == "first:1"
    for _ in range(3):
        with pytest.raises(NotTrusted, match="at first:1: was the data directory copied"):
            beat("copy:1")
        assert beat("first:1") == "first:1"
    clock.now += 4
    assert beat("copy:1", "copy:1") == "copy:1"


def test_a_node_that_restarts_elsewhere_is_heard_there_at_once(members: Members) -> None:
    """Also twice, and back at the old place later."""
    for address in ("a:1", "a:2", "a:3", "b:1", "b:1"):
        members.hear("kitchen", address, PI, -1, "")
        assert members.get("kitchen").address == address


def test_what_cannot_be_written_down_has_not_happened(
    mesh: KeptMesh, members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal that a restart would undo is an error and no removal; a name that was not admitted is free.

    What a member says of itself counts all the same.
    """
    full = OSError(errno.ENOSPC, "No space left on device")
    secret = mesh.invites.make(60)
    with monkeypatch.context() as patch:
        patch.setattr("coordinator.membership.book.write_state", mock.Mock(side_effect=full))
        for change in (
            lambda: members.remove("kitchen"), lambda: mesh.let_in("attic", "a2", secret=secret),
            lambda: mesh.renew("kitchen", "a1", "b2", "next"), lambda: mesh.invites.make(60),
        ):  # fmt: skip
            with pytest.raises(DiskFull, match=f"cannot write {tmp_path}.*make room"):
                change()
        members.hear("kitchen", "10.0.0.2:50051", PI, 3, "")
        assert members.check("kitchen", "a1").address == "10.0.0.2:50051"
    assert [member.serials for member in members.all()] == [("a1",)]
    assert mesh.let_in("attic", "a2", secret=secret) == "a2"


def test_a_certificate_of_before_is_good_until_the_new_one_is_seen(mesh: KeptMesh, members: Members) -> None:
    """A node that was cut off while it renewed can try again; after that the old one is worth nothing."""
    mesh.renew("kitchen", "a1", "b2", "next")
    for serial in ("a1", "a1", "b2"):
        assert members.check("kitchen", serial).name == "kitchen"
    with pytest.raises(NotTrusted):
        members.check("kitchen", "a1")
    with pytest.raises(NotTrusted, match="a newer certificate"):
        mesh.renew("kitchen", "a1", "c3", "late")
    assert members.get("kitchen").serials == ("b2",)


def test_the_certificate_that_asks_is_never_dropped_however_often_the_answer_is_lost(
    mesh: KeptMesh, members: Members, tmp_path: Path
) -> None:
    """With another key each time, as nodes of earlier builds ask; what it has got last is good too, and then alone."""
    for number in range(100):
        members.check("kitchen", "a1")
        mesh.renew("kitchen", "a1", f"b{number}", f"key{number}")
    assert len(members.get("kitchen").serials) == MOST_SERIALS
    again = KeptMesh(tmp_path).members
    assert again.check("kitchen", "a1").name == "kitchen"
    assert again.check("kitchen", "b99").serials == ("b99",)


def test_who_asks_again_with_the_same_key_gets_the_same_certificate(mesh: KeptMesh, tmp_path: Path) -> None:
    """Also from a coordinator that was started again; what is no news is not written."""
    assert mesh.renew("kitchen", "a1", "b2", "next") == "b2"
    again = KeptMesh(tmp_path)
    before = (tmp_path / MEMBERS_FILE).stat().st_ino
    assert again.renew("kitchen", "a1", "c3", "next") == "b2"
    assert (tmp_path / MEMBERS_FILE).stat().st_ino == before
    assert again.members.get("kitchen").serials == ("a1", "b2")


def test_a_certificate_that_waited_too_long_to_be_fetched_is_made_anew(mesh: KeptMesh, members: Members) -> None:
    """It would have to be renewed at once."""
    mesh.renew("kitchen", "a1", "b2", "next")
    mesh.clock.now = float(1 << 40)
    assert mesh.renew("kitchen", "a1", "c3", "next") == "c3"
    assert members.check("kitchen", "c3").serials == ("c3",)


def test_a_removed_node_is_not_trusted_and_its_name_is_free(mesh: KeptMesh, members: Members, tmp_path: Path) -> None:
    """A new node of that name does not make the old certificate good again."""
    members.remove("kitchen")
    with pytest.raises(NotTrusted):
        members.check("kitchen", "a1")
    mesh.let_in("kitchen", "z9")
    with pytest.raises(NotTrusted):
        KeptMesh(tmp_path).members.check("kitchen", "a1")


def test_what_cannot_be_is_refused(mesh: KeptMesh, members: Members) -> None:
    """A name twice, a name that is none, a node that is not there, too many; none of it costs the token."""
    secret = mesh.invites.make(60)
    with pytest.raises(NameTaken, match="mesh remove kitchen"):
        mesh.let_in("kitchen", "b", secret=secret)
    with pytest.raises(InputError):
        mesh.let_in("../x", "b", secret=secret)
    with pytest.raises(NoSuchNode, match="there are: kitchen"):
        members.remove("attic")
    mesh.book.note(members={f"n{number}": members.get("kitchen") for number in range(MAX_MEMBERS)})
    with pytest.raises(InputError, match="at most"):
        mesh.let_in("one-more", "b", secret=secret)
    mesh.book.note(members={})
    assert mesh.let_in("one-more", "b", secret=secret) == "b"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "members": [{"name": "x"}]}',
        b'{"format": 1, "members": [], "invites": [{"hash": "x"}]}',
        b'{"format": 1, "members": [], "invites": [{"hash": "x", "ends": "soon"}]}',
        b'{"format": 1, "members": [], "unseen": [{"name": "x"}]}', b'{"format": 1, "members": [], "unseen": [1]}',
        b'{"format": 1, "members": [], "invites": [{"hash": "x", "ends": 1, "left": 1' + b"0" * 400 + b"}]}",
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_list_is_an_error_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    """Nobody is forgotten silently."""
    (tmp_path / MEMBERS_FILE).write_bytes(content)
    with pytest.raises(InputError, match=MEMBERS_FILE):
        Book(tmp_path)
    assert (tmp_path / MEMBERS_FILE).read_bytes() == content


def test_a_list_that_cannot_be_written_changes_nothing(
    mesh: KeptMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on disk is whole, and no temporary file is left."""

    def fail(*arguments: object) -> None:
        raise OSError(errno.EROFS, "no writing")

    secret = mesh.invites.make(60)
    before = (tmp_path / MEMBERS_FILE).read_bytes()
    monkeypatch.setattr("common.machine.durable_files.os.replace", fail)
    with pytest.raises(ResourceError, match="no writing"):
        mesh.let_in("attic", "b", secret=secret)
    assert json.loads(before)["members"][0]["name"] == "kitchen"
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept == {MEMBERS_FILE: before, f"{MEMBERS_FILE}.copy": before}


def test_a_node_that_moves_with_every_heartbeat_makes_no_write_each(tmp_path: Path) -> None:
    """A place is written once it has stayed, and at most once a minute; the first one at once."""
    clock = Clock()
    mesh = KeptMesh(tmp_path, clock)
    mesh.let_in("kitchen", "a1")

    def writes(*addresses: str) -> int:
        with mock.patch("coordinator.membership.book.Book.try_to_write") as written:
            for address in addresses:
                clock.now += 1.0
                mesh.members.hear("kitchen", address, PI, -1, "")
        return written.call_count

    assert writes("first:1") == 1
    assert writes(*(f"10.0.{number % 250}.2:1" for number in range(300))) == 0
    assert writes(*["home:1"] * 10) == 1
    assert writes(*(f"10.1.{second // 5}.2:1" for second in range(120))) == 2
