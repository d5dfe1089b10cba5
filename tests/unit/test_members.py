"""Who is a member, with which certificate, and is it remembered? Which tokens can still be used?"""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from common.errors import DiskFull, InputError, NameTaken, NoSuchNode, NotTrusted, ResourceError, TokenRefused
from coordinator.membership.invites import MAX_LIFETIME_SECONDS, MAX_OPEN, Invites
from coordinator.membership.members import MAX_MEMBERS, MEMBERS_FILE, Device, Members

PI = Device(version="1", core_count=4, memory_bytes=8 << 30, free_memory_bytes=6 << 30, free_disk_bytes=1 << 40)


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def members(tmp_path: Path) -> Members:
    """Return a mesh of one node, kitchen."""
    made = Members(tmp_path, Clock())
    made.admit("kitchen", "a1", 1000, PI)
    return made


def test_members_are_found_again_after_a_restart(members: Members, tmp_path: Path) -> None:
    """Everything but when they were heard."""
    members.hear("kitchen", "10.0.0.2:50051", PI, 3, "f" * 64)
    (again,) = Members(tmp_path).all()
    assert again == replace(members.get("kitchen"), rank=3)
    assert Members(tmp_path).silent_seconds(again) < 0


def test_a_copy_of_a_node_is_refused_while_the_first_one_is_heard(tmp_path: Path) -> None:
    """A slice that is sent to one would be asked of the other. Once the first has gone, it moves."""
    clock = Clock()
    members = Members(tmp_path, clock)
    members.admit("kitchen", "a1", 1000, PI)

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
    members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal that a restart would undo is an error and no removal; a name that was not admitted is free.

    What a member says of itself counts all the same.
    """
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr("coordinator.membership.members.replace_private", mock.Mock(side_effect=full))
        for change in (
            lambda: members.remove("kitchen"), lambda: members.admit("attic", "a2", 1000, PI),
            lambda: members.renew("kitchen", "b2", 2000),
        ):  # fmt: skip
            with pytest.raises(DiskFull, match=f"cannot write {tmp_path}.*make room"):
                change()
        members.hear("kitchen", "10.0.0.2:50051", PI, 3, "")
        assert members.check("kitchen", "a1").address == "10.0.0.2:50051"
    assert [member.serials for member in members.all()] == [("a1",)]
    members.admit("attic", "a2", 1000, PI)


def test_a_certificate_of_before_is_good_until_the_new_one_is_seen(members: Members) -> None:
    """A node that was cut off while it renewed can try again; after that the old one is worth nothing."""
    members.renew("kitchen", "b2", 2000)
    for serial in ("a1", "a1", "b2"):
        assert members.check("kitchen", serial).name == "kitchen"
    with pytest.raises(NotTrusted):
        members.check("kitchen", "a1")
    assert members.get("kitchen").certificate_ends == 2000


def test_a_certificate_that_was_renewed_and_never_fetched_is_forgotten(members: Members) -> None:
    """However often the answer is lost."""
    for serial in ("b2", "c3", "d4"):
        members.renew("kitchen", serial, 2000)
    assert members.get("kitchen").serials == ("c3", "d4")


def test_a_removed_node_is_not_trusted_and_its_name_is_free(members: Members, tmp_path: Path) -> None:
    """A new node of that name does not make the old certificate good again."""
    members.remove("kitchen")
    with pytest.raises(NotTrusted):
        members.check("kitchen", "a1")
    members.admit("kitchen", "z9", 1000, PI)
    with pytest.raises(NotTrusted):
        Members(tmp_path).check("kitchen", "a1")


def test_what_cannot_be_is_refused(members: Members) -> None:
    """A name twice, a name that is none, a node that is not there, too many."""
    with pytest.raises(NameTaken, match="mesh remove kitchen"):
        members.admit("kitchen", "b", 1, PI)
    with pytest.raises(InputError):
        members.admit("../x", "b", 1, PI)
    with pytest.raises(NoSuchNode, match="there are: kitchen"):
        members.remove("attic")
    for number in range(MAX_MEMBERS - 1):
        members._members[f"n{number}"] = members.get("kitchen")
    with pytest.raises(InputError, match="at most"):
        members.admit("one-more", "b", 1, PI)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "members": [{"name": "x"}]}'])
def test_a_damaged_list_is_an_error_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    """Nobody is forgotten silently."""
    (tmp_path / MEMBERS_FILE).write_bytes(content)
    with pytest.raises(InputError, match=MEMBERS_FILE):
        Members(tmp_path)
    assert (tmp_path / MEMBERS_FILE).read_bytes() == content


def test_a_list_that_cannot_be_written_changes_nothing(
    members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on disk is whole, and no temporary file is left."""

    def fail(*arguments: object) -> None:
        raise OSError(errno.EROFS, "no writing")

    before = (tmp_path / MEMBERS_FILE).read_bytes()
    monkeypatch.setattr("common.machine.durable_files.os.replace", fail)
    with pytest.raises(ResourceError, match="no writing"):
        members.admit("attic", "b", 1, PI)
    assert json.loads(before)["members"][0]["name"] == "kitchen"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(MEMBERS_FILE, before)]


def test_a_token_is_good_once_and_until_it_expires() -> None:
    """And nobody learns which of the two it was."""
    clock = Clock()
    invites = Invites(clock)
    first, second = invites.make(60), invites.make(60)
    assert invites.any_open
    invites.use(first)
    clock.now += 61
    assert not invites.any_open
    for secret in (first, second, b"", b"x" * 16):
        with pytest.raises(TokenRefused, match="make another"):
            invites.use(secret)


def test_a_token_that_was_given_back_is_good_again_for_a_minute() -> None:
    """What it was used for failed for another reason."""
    clock = Clock()
    invites = Invites(clock)
    secret = invites.make(3600)
    invites.use(secret)
    invites.give_back(secret)
    invites.use(secret)
    invites.give_back(secret)
    clock.now += 61
    with pytest.raises(TokenRefused):
        invites.use(secret)


def test_tokens_have_limits() -> None:
    """On how long, and on how many."""
    invites = Invites(Clock())
    for seconds in (0, -1, MAX_LIFETIME_SECONDS + 1):
        with pytest.raises(InputError):
            invites.make(seconds)
    for _ in range(MAX_OPEN):
        invites.make(60)
    with pytest.raises(ResourceError):
        invites.make(60)
