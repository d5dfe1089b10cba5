"""What of a mesh is kept elsewhere, so that a lost disk is not the end of it?

Covers: authority, identity, observers' authority and the list of members as one document, and bringing them back. Does
not cover: how it is locked (common/trust/passphrase_box.py), models, which are loaded again: nodes have their slices.

A list of before knows nothing of what came after. Whom it lists and who has been removed since must stay out, so who
brings it back says who that is, and a list that is still here, whole, counts instead. Whom it lists with an older
certificate than he has now is known by his name, for a certificate of this mesh that was made after the backup
(members.py). Nodes keep the last list that the authority has signed, and show it: who is not on a list of the time that
was lost is removed, also where a person has forgotten it (found_again.py). Tokens that were open are not any more:
some may have been used since.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import AddressInUse, InputError
from common.machine.state_directory import check_directory, check_own
from common.program.state_files import DAMAGE, is_there, read_state, unsealed, write_state
from common.trust.certificates import check_pair, fingerprint, mesh_of
from common.trust.identity import AUTHORITY_FILE, KEYED_FILE, keyed_from, not_written
from coordinator.membership.book import MEMBERS_FILE, Book, Kept
from coordinator.membership.observers import AUTHORITY_FILE as OBSERVERS_FILE
from coordinator.membership.state import AUTHORITY_KEY_FILE, LOCK_FILE, NEXT_FILE, open_mesh_state, paired

FORMAT = 1
FILES = (AUTHORITY_FILE, KEYED_FILE, OBSERVERS_FILE, NEXT_FILE, MEMBERS_FILE, AUTHORITY_KEY_FILE)
"""In the order in which they are brought back: with the last one the mesh is there."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a mesh was at some time."""

    made_at: int
    """Seconds since 1970."""
    files: dict[str, bytes]

    @property
    def mesh(self) -> str:
        """The name of the mesh."""
        return mesh_of(self.files[AUTHORITY_FILE])

    @property
    def members(self) -> list[str]:
        """The names of its members, sorted."""
        document = json.loads(self.files[MEMBERS_FILE])
        return sorted(str(member["name"]) for member in document["members"])

    def text(self) -> bytes:
        """Return it as one document."""
        files = {name: base64.b64encode(content).decode("ascii") for name, content in self.files.items()}
        return json.dumps({"format": FORMAT, "made_at": self.made_at, "files": files}).encode("ascii")


def take_backup(directory: Path) -> Backup:
    """Return what a mesh is now, whether its coordinator runs or not. Raises: InputError, NotTrusted: it is damaged."""
    open_mesh_state(directory)
    files = {
        name: read_state(directory / name, lambda content: content) for name in FILES if is_there(directory / name)
    }
    files.setdefault(MEMBERS_FILE, Book(directory).content)
    return _checked(Backup(made_at=int(time.time()), files=files))


def read_backup(text: bytes) -> Backup:
    """Return what a document holds. Raises: InputError: it is not one of these."""
    try:
        document: Any = json.loads(text)
        if document["format"] != FORMAT:
            raise InputError(f"the backup is of format {document['format']} and this program reads {FORMAT}")
        files = {
            str(name): base64.b64decode(content, validate=True)
            for name, content in document["files"].items()
            if name in FILES
        }
        return _checked(Backup(made_at=int(document["made_at"]), files=files))
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"the backup is no backup of a mesh ({error})") from error


def bring_back(backup: Backup, directory: Path, removed: Collection[str]) -> list[str]:
    """Write a mesh as it was; return the names of its members then. It may be done again, wherever it was broken off.

    Args: removed: members of the backup who are not to come back.
    Raises: InputError: another mesh is there, or nobody of that name is in the backup; AddressInUse: its coordinator
    runs; DiskFull, InputError: it cannot be written.
    """
    if unknown := set(removed) - set(backup.members):
        raise InputError(
            f"the backup has no member called {min(unknown)}; it has: {', '.join(backup.members) or 'none'}"
        )
    check_own(directory)
    check_directory(directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(directory):
            _check_same_mesh(backup, directory)
            files = {**backup.files, MEMBERS_FILE: _members(backup, directory, removed)}
            for name in FILES:
                if name in files:
                    write_state(directory / name, unsealed(files[name]))
    except OSError as error:
        raise not_written(directory, error) from error
    return [member.name for member in open_mesh_state(directory).members.all()]


def _members(backup: Backup, directory: Path, removed: Collection[str]) -> bytes:
    """Return the list of members as it is to be: the one that is here, if it is whole, since it is newer."""
    if is_there(directory / MEMBERS_FILE):
        try:
            here = Book(directory)
        except InputError:
            pass  # damaged: that is what a backup is for
        else:
            return here.without(removed)
    return Book.of(backup.files[MEMBERS_FILE], lambda kept: _brought_back(kept, backup.made_at)).without(removed)


def _brought_back(kept: Kept, made_at: int) -> Kept:
    members = {name: replace(member, restored_from=made_at, returned=()) for name, member in kept.members.items()}
    unseen = {name: replace(one, invite_hash="", invite_ends=0.0) for name, one in kept.unseen.items()}
    return replace(kept, members=members, unseen=unseen, invites={}, lost=(made_at, int(time.time())))


def _checked(backup: Backup) -> Backup:
    """Return a backup of which all is there and readable. Raises: any of DAMAGE."""
    files = backup.files
    if missing := [name for name in FILES if name not in files and name not in (OBSERVERS_FILE, NEXT_FILE)]:
        raise InputError(f"the backup lacks {', '.join(missing)}")
    paired(files[AUTHORITY_KEY_FILE], files[AUTHORITY_FILE])
    check_pair(keyed_from(files[KEYED_FILE]))
    Book.of(files[MEMBERS_FILE], lambda kept: kept)
    return backup


def _check_same_mesh(backup: Backup, directory: Path) -> None:
    """Refuse to write over another mesh. Raises: InputError."""
    try:
        here = read_state(directory / AUTHORITY_FILE, fingerprint)
    except (OSError, *DAMAGE):
        return
    if here != fingerprint(backup.files[AUTHORITY_FILE]):
        raise InputError(f"another mesh than that of the backup is in {directory}; choose another --state-dir")


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep a coordinator from starting there meanwhile. Raises: AddressInUse: one runs."""
    lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise AddressInUse(f"a coordinator runs on {directory}; stop it first") from error
    finally:
        os.close(lock)
