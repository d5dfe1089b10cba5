"""Does a mesh come back from a backup, without whom was removed since, and without anybody doing a thing on its nodes?

Covers: what is kept, the passphrase, bringing back, with real certificates and calls. Does not cover: models (their
slices stay on the nodes, test_loading.py), asking a person (the two verbs).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from common.errors import AddressInUse, InputError, NotTrusted
from common.program.state_files import copy_of
from common.trust.certificates import serial_of
from common.trust.passphrase_box import locked, opened
from coordinator.membership.backup import Backup, bring_back, read_backup, take_backup
from coordinator.membership.book import MEMBERS_FILE
from coordinator.membership.state import init_mesh, open_mesh_state
from coordinator.program.daemon import Coordinator
from shardnode.membership.join import IDENTITY_DIRECTORY
from shardnode.membership.membership import Membership, Presence
from tests.support.free_ports import free_place
from tests.support.mesh_members import aged_identity, beat, joined, state_of
from tests.support.waiting import wait_until

PASSPHRASE = "seven words that nobody would guess"
CLI = "from coordinator.cli.start import main; main()"


def lose(state: Path) -> None:
    """Lose the coordinator's disk."""
    shutil.rmtree(state)


def as_of(backup: Backup, days: float) -> Backup:
    """Return a backup as if it had been made then."""
    then = datetime.now(timezone.utc) + timedelta(days=days)
    return Backup(made_at=int(then.timestamp()), files=backup.files)


def test_nodes_come_back_by_themselves_and_who_was_removed_stays_out(tmp_path: Path) -> None:
    """Also a node whose certificate was renewed after the backup, which the list of before does not have."""
    state = tmp_path / "state"
    init_mesh(state, "home")
    coordinator = Coordinator(state, free_place())
    identities = {name: joined(state, name, tmp_path / name) for name in ("kitchen", "attic", "lost")}
    assert [beat(coordinator, identity) for identity in identities.values()] == [None] * 3
    backup = as_of(take_backup(state), -100)
    assert backup.members == ["attic", "kitchen", "lost"]
    renewed = aged_identity(coordinator, tmp_path / "kitchen" / IDENTITY_DIRECTORY)
    assert renewed != identities["kitchen"]
    assert beat(coordinator, renewed) is None
    token_before = take_backup(state)
    coordinator.close()
    lose(state)

    assert bring_back(read_backup(backup.text()), state, ["lost"]) == ["attic", "kitchen"]
    coordinator = Coordinator(state, free_place())
    try:
        assert beat(coordinator, renewed) is None
        assert beat(coordinator, identities["attic"]) is None
        assert isinstance(beat(coordinator, identities["lost"]), NotTrusted)
        assert isinstance(beat(coordinator, identities["kitchen"]), NotTrusted), "the older one is worth nothing now"
        late = joined(state, "late", tmp_path / "late")
        assert beat(coordinator, late) is None
        with pytest.raises(AddressInUse, match="stop it first"):
            bring_back(token_before, state, [])
    finally:
        coordinator.close()


def test_a_list_that_is_still_here_counts_more_than_an_older_one(tmp_path: Path) -> None:
    """A lost key is brought back; who was removed after the backup stays out, whatever is said of him."""
    state = tmp_path / "state"
    init_mesh(state, "home")
    coordinator = Coordinator(state, free_place())
    for name in ("kitchen", "lost"):
        joined(state, name, tmp_path / name)
    backup = take_backup(state)
    state_of(state)
    coordinator._state.members.remove("lost")
    coordinator.close()
    for path in (state / "authority.key", copy_of(state / "authority.key")):
        path.unlink()
    assert bring_back(backup, state, []) == ["kitchen"]
    for path in (state / MEMBERS_FILE, copy_of(state / MEMBERS_FILE)):
        path.write_bytes(b"damaged")
    assert bring_back(backup, state, ["lost"]) == ["kitchen"]


def test_who_was_removed_is_told_by_nodes_where_a_person_has_forgotten_it(tmp_path: Path) -> None:
    """A node keeps the list that the authority signed last, and shows it; also after both were started again."""
    state = tmp_path / "state"
    init_mesh(state, "home")
    address = free_place()
    coordinator = Coordinator(state, address)
    lost = joined(state, "lost", tmp_path / "lost")
    joined(state, "kitchen", tmp_path / "kitchen")
    assert beat(coordinator, lost) is None
    backup = as_of(take_backup(state), -1)
    coordinator._state.members.remove("lost")

    def node() -> Membership:
        return Membership(tmp_path / "kitchen" / IDENTITY_DIRECTORY, tmp_path / "kitchen", address)

    def turn(member: Membership) -> None:
        member.turn(Presence(listen="127.0.0.1:5"))
        member._hang_up()

    first = node()

    def knows_of_it() -> bool:
        turn(first)
        return bool(first.members.number) and serial_of(lost.own.certificate).encode() not in first.members.signed[0]

    wait_until(knows_of_it, limit_seconds=10, what="the node has heard of the removal")
    first.close()
    coordinator.close()
    lose(state)
    assert bring_back(as_of(backup, -1), state, []) == ["kitchen", "lost"], "a person has forgotten one"
    for _ in range(2):
        coordinator = Coordinator(state, address)
        try:
            again = node()
            turn(again)
            again.close()
            assert isinstance(beat(coordinator, lost), NotTrusted)
        finally:
            coordinator.close()


def test_a_token_of_before_lets_nobody_in(tmp_path: Path) -> None:
    """It may have been used after the backup was made."""
    state = tmp_path / "state"
    init_mesh(state, "home")
    open_mesh_state(state).invites.make(3600)
    backup = take_backup(state)
    assert open_mesh_state(state).invites.any_open
    lose(state)
    bring_back(backup, state, [])
    assert not open_mesh_state(state).invites.any_open


def test_a_certificate_that_is_older_than_the_backup_and_not_listed_is_refused(tmp_path: Path) -> None:
    """Such a one was replaced, or its device removed, before the backup was made."""
    state = tmp_path / "state"
    init_mesh(state, "home")
    coordinator = Coordinator(state, free_place())
    first = joined(state, "kitchen", tmp_path / "first")
    coordinator._state.members.remove("kitchen")
    second = joined(state, "kitchen", tmp_path / "second")
    assert beat(coordinator, second) is None
    backup = as_of(take_backup(state), 0.01)
    coordinator.close()
    lose(state)
    bring_back(backup, state, [])
    coordinator = Coordinator(state, free_place())
    try:
        assert isinstance(beat(coordinator, first), NotTrusted)
        assert beat(coordinator, second) is None
    finally:
        coordinator.close()


def test_only_the_passphrase_opens_a_backup_and_no_bit_of_it_can_be_changed() -> None:
    """Of the header, too, which says how the key is made."""
    content = locked(b"secret", PASSPHRASE)
    assert b"secret" not in content
    assert opened(content, PASSPHRASE) == b"secret"
    with pytest.raises(InputError, match="passphrase is another one"):
        opened(content, PASSPHRASE + " ")
    for position in range(0, len(content), 23):
        changed = bytearray(content)
        changed[position] ^= 1
        with pytest.raises(InputError):
            opened(bytes(changed), PASSPHRASE)
    with pytest.raises(InputError, match="at least 8"):
        locked(b"secret", "short")


@pytest.mark.parametrize(
    "header", [b"{}", b"[" * 900, b'{"n": 1073741824, "r": 8, "p": 1, "salt": "00", "nonce": "00"}', b'{"n": 1e999}']
)
def test_a_hostile_header_takes_neither_memory_nor_the_program_down(header: bytes) -> None:
    """One line."""
    with pytest.raises(InputError, match="backup is damaged"):
        opened(b"shardmesh-backup 1\n" + header + b"\n" + bytes(100), PASSPHRASE)


@pytest.mark.parametrize("text", [b"", b"[]", b'{"format": 9}', b'{"format": 1, "made_at": 1, "files": {}}'])
def test_what_is_no_backup_inside_is_refused(text: bytes) -> None:
    """Though somebody locked it with the passphrase."""
    with pytest.raises(InputError, match="backup"):
        read_backup(text)


def test_the_two_verbs_do_it_and_ask_for_what_they_cannot_know(tmp_path: Path) -> None:
    """Without a terminal the answer has to be on the line; another mesh is never written over."""

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", CLI, "mesh", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, input=PASSPHRASE, timeout=60)

    state, other, file = tmp_path / "state", tmp_path / "other", tmp_path / "mesh.backup"
    init_mesh(state, "home")
    init_mesh(other, "home")
    coordinator = Coordinator(state, free_place())
    joined(state, "kitchen", tmp_path / "kitchen")
    made = typed("backup", str(file), "--passphrase-file", "-", "--state-dir", str(state))
    coordinator.close()
    assert made.returncode == 0, made.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    lose(state)
    asked = typed("restore", str(file), "--passphrase-file", "-", "--state-dir", str(state))
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "has: kitchen. Which were removed since? Say it with --removed NAME, or with --none-removed" in asked.stderr
    line = ("restore", str(file), "--none-removed", "--passphrase-file", "-", "--state-dir")
    refused = typed(*line, str(other))
    assert refused.returncode == 2
    assert "another mesh than that of the backup" in refused.stderr
    assert typed(*line, str(state)).returncode == 0
    assert [member.name for member in open_mesh_state(state).members.all()] == ["kitchen"]
