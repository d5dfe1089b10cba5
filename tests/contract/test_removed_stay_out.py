"""Does who was removed in the time that a backup does not know stay out, whoever comes first and whatever clocks say?

Covers: lists of before and after a return, of the same second too; a removed node that is the first to come back, that
renews then, also where devices join; certificates of the future; clocks that are set back. Does not cover: calls of
whole programs (test_backup.py, attacks/test_removed_members.py), the two verbs (test_backup.py).
"""

from __future__ import annotations

import functools
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import NotTrusted
from common.program.places import Caller
from common.program.state_files import copy_of
from common.trust.certificates import COORDINATOR, NODE, PeerName, made_at, serial_of
from common.trust.member_list import MemberList
from common.trust.signing import make_authority, signature
from coordinator.membership import good_list
from coordinator.membership.backup import bring_back, take_backup
from coordinator.membership.book import Device, Issued
from coordinator.membership.found_again import FoundAgain
from coordinator.membership.good_list import GoodList
from coordinator.membership.state import init_mesh, open_mesh_state
from protos.shardmesh.v1 import mesh_pb2
from shardnode.membership.known_members import KnownMembers
from tests.support.waiting import wait_until

DAY = 86_400.0


class Home:
    """A mesh with two nodes, of which one is removed after a backup; then its coordinator is brought back."""

    def __init__(self, directory: Path, *, return_clock: float = 0.0) -> None:
        """Args: return_clock: seconds that the clock is off once the coordinator is brought back."""
        self.directory, now = directory, int(time.time())
        init_mesh(directory, "home")
        state = open_mesh_state(directory)
        for name in ("kitchen", "lost"):
            secret = state.invites.make(600)
            state.members.admit(name, secret, name, Device(), functools.partial(issued, name))
            state.members.check(name, name)
        self.before = signed(GoodList(state))
        backup = replace(take_backup(directory), made_at=now - 60)
        state.members.remove("lost")
        self.last = signed(GoodList(state))
        shutil.rmtree(directory)
        bring_back(backup, directory, [])
        self.state = open_mesh_state(directory)
        kept = self.state.book.kept
        self.state.book.kept = replace(kept, lost=(kept.lost[0], kept.lost[1] + int(return_clock)))
        self.state.book.change()
        self.found = FoundAgain(self.state)

    def shown(self, said: mesh_pb2.SignedMembers) -> list[str]:
        """Have a node show a list."""
        return self.found.hear(said.content, said.signature)

    def is_in(self, name: str, serial: str, made: float) -> bool:
        """Tell whether a node is heard with a certificate."""
        state = self.state
        if not state.members.lists(name, serial) and not self.found.lets_in(serial, made):
            return False
        try:
            state.members.check(name, serial, made)
        except NotTrusted:
            return False
        return True


def issued(serial: str, ends: int = 0) -> Issued:
    """Return a certificate whose serial is all that is looked at."""
    return Issued(certificate=b"c", serial=serial, ends=ends)


def signed(lists: GoodList) -> mesh_pb2.SignedMembers:
    """Return the list of now."""
    number = 0 if lists._list is None else lists._list.number
    lists.current()
    wait_until(lambda: lists._list is not None and (lists._list.number > number or not lists._is_signing),
               limit_seconds=10, what="a signature")  # fmt: skip
    said = lists.current()
    assert said is not None
    return said


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return such a mesh."""
    return Home(tmp_path / "state")


def ago(seconds: float = 3600) -> float:
    """Return when a certificate was made."""
    return time.time() - seconds


def test_the_list_that_a_coordinator_signs_in_the_second_of_its_return_does_not_count(home: Home) -> None:
    """It lists whom the backup lists."""
    own = signed(GoodList(home.state))
    assert home.shown(home.last) == []
    assert not home.is_in("lost", "lost", ago())
    assert home.shown(own) == []
    assert not home.is_in("lost", "lost", ago())
    home.found = FoundAgain(home.state)
    assert home.shown(own) == []
    assert not home.is_in("lost", "lost", ago())
    assert home.is_in("kitchen", "kitchen", ago())


@pytest.mark.parametrize("days", [-100, 100])
def test_a_clock_that_is_wrong_at_the_return_lets_nobody_in(tmp_path: Path, days: int) -> None:
    """Which lists are of the lost time is told by the lists, not by a clock."""
    home = Home(tmp_path / "state", return_clock=days * DAY)
    own = signed(GoodList(home.state))
    for said in (own, home.last, own):
        assert home.shown(said) == []
    assert not home.is_in("lost", "lost", ago())
    assert home.is_in("kitchen", "kitchen", ago())


def test_who_comes_first_and_renews_is_removed_once_a_node_shows_the_list(home: Home) -> None:
    """By the certificate with which it came back, whatever it has been given since; also after a restart."""
    assert home.is_in("lost", "lost", ago()), "nobody has told yet"
    home.state.members.renew("lost", "lost", "another key", lambda: issued("new"))
    assert home.is_in("lost", "new", ago(0))
    home.state = open_mesh_state(home.directory)
    home.found = FoundAgain(home.state)
    assert home.shown(home.last) == ["lost"]
    for serial in ("lost", "new"):
        assert not home.is_in("lost", serial, ago(0))
    assert "lost" not in {member.name for member in open_mesh_state(home.directory).members.all()}
    assert home.is_in("kitchen", "kitchen", ago())


def test_who_renews_where_devices_join_is_removed_as_well(home: Home) -> None:
    """There it is not checked by a handshake; the certificate that had ended is what it came back with."""
    home.state.members.check_listed("lost", "lost")
    home.state.members.renew("lost", "lost", "a key", lambda: issued("new"), ago())
    assert home.shown(home.last) == ["lost"]
    with pytest.raises(NotTrusted):
        home.state.members.check_listed("lost", "new")


def test_where_a_node_has_shown_the_list_nothing_of_the_backup_is_good(home: Home) -> None:
    """Not where devices join either, and the next list of the coordinator's does not have it."""
    assert home.shown(home.last) == []
    with pytest.raises(NotTrusted):
        home.state.members.check_listed("lost", "lost")
    said = signed(GoodList(home.state))
    assert b'"kitchen"' in said.content
    assert b'"lost"' not in said.content


def test_a_list_of_before_the_backup_or_an_earlier_one_changes_nothing(home: Home) -> None:
    """Nor one that the authority has not signed."""
    assert home.shown(home.last) == []
    assert home.shown(home.before) == []
    forged = MemberList(mesh="home", number=1 << 60, made_at=int(time.time()), members=frozenset(("lost",)),
                        coordinators=frozenset())  # fmt: skip
    other = make_authority("home")
    assert (
        home.shown(mesh_pb2.SignedMembers(content=forged.content, signature=signature(other.key, forged.content))) == []
    )
    assert not home.is_in("lost", "lost", ago())


def test_a_certificate_of_the_future_is_no_restored_members(home: Home) -> None:
    """All that were made after the return are written down; one of a clock that was ahead is let in by no name."""
    assert not home.is_in("lost", "unknown", time.time() + 80 * DAY)
    assert home.is_in("kitchen", "renewed", ago(30)), "made between the backup and the return"


def test_lists_are_later_than_all_of_before_where_a_clock_is_set_back(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nodes take them; by a restart too, and above a list that only nodes still have."""
    lists = GoodList(home.state)
    first = signed(lists)
    kept = KnownMembers(tmp_path, lambda: home.state.authority.certificate)
    kept.hear(first.content, first.signature)
    past = SimpleNamespace(time=lambda: time.time() - 100 * DAY, monotonic=time.monotonic)
    monkeypatch.setattr(good_list, "time", past)
    home.state.members.remove("lost")
    again = GoodList(home.state)
    said = signed(again)
    known = again._list
    assert known is not None
    assert lists._list is not None
    assert known.made_at >= lists._list.made_at
    kept.hear(said.content, said.signature)
    assert kept.number == known.number, "taken"
    for path in (home.directory / good_list.FILE, copy_of(home.directory / good_list.FILE)):
        path.unlink()
    lost = GoodList(home.state)
    assert signed(lost) is not None
    assert lost._list is not None
    assert lost._list.number < known.number
    lost.outdo(said.content, said.signature)
    kept.hear(*fields_of(signed(lost)))
    assert lost._list.number == kept.number > known.number


def fields_of(said: mesh_pb2.SignedMembers) -> tuple[bytes, bytes]:
    """Return content and signature."""
    return said.content, said.signature


def test_a_coordinators_certificate_of_the_lists_second_has_to_be_on_it(home: Home, tmp_path: Path) -> None:
    """It may be the one that was replaced within that second; a later one is good, an equal number changes nothing."""
    own = home.state.identity().own.certificate
    lists = GoodList(home.state)
    said = signed(lists)
    assert lists._list is not None
    assert lists._list.made_at >= made_at(own).timestamp()
    known = KnownMembers(tmp_path, lambda: home.state.authority.certificate)
    known.hear(said.content, said.signature)
    peer = PeerName(mesh="home", role=COORDINATOR, name="home")

    def refused(serial: str, later: float, peer: PeerName = peer) -> bool:
        assert lists._list is not None
        caller = Caller(host="10.0.0.2", deadline=0.0, connection=None, serial=serial)  # type: ignore[arg-type] # not looked at
        caller.certified_at = lists._list.made_at + later
        return bool(known.refusal(peer, caller))

    assert not refused(serial_of(own), 0)
    assert refused("replaced", 0)
    assert not refused("renewed", 1)
    assert refused("renewed", 1, PeerName(mesh="home", role=NODE, name="laptop"))
    twin = MemberList(
        mesh="home", number=known.number, made_at=0, members=frozenset(), coordinators=frozenset(("replaced",))
    )
    known.hear(twin.content, signature(home.state.authority.key, twin.content))
    assert refused("replaced", 0)
