"""The coordinator's state directory: the mesh's authority, the coordinator's own identity, the members.

Covers: making a mesh, finding it again. Does not cover: what is done with it (program/daemon.py).
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, NotTrusted, ShardmeshError
from common.machine.durable_files import failure_to_write
from common.machine.state_directory import check_directory, check_own, state_directory
from common.program.logs import entry
from common.program.state_files import DAMAGE, is_sealed, is_there, mend_state, read_state, remove_state, write_state
from common.trust.certificates import (
    COORDINATOR,
    KeyedCertificate,
    PeerName,
    certificates_in,
    check_name,
    check_pair,
    has_metrics_name,
    is_signed_by,
    mesh_of,
    needs_renewal,
)
from common.trust.certifying_apart import CertifyingHere
from common.trust.identity import Identity, load_identity, mend_identity, read_pair, save_identity
from coordinator.membership.book import AFTER_DAMAGE, MEMBERS_FILE, Book
from coordinator.membership.invites import Invites
from coordinator.membership.members import Members
from coordinator.membership.observers import AUTHORITY_FILE as OBSERVERS_FILE
from coordinator.membership.observers import Observers

AUTHORITY_KEY_FILE = "authority.key"
NEXT_FILE = "next-authority.pem"
"""Key and certificate of the authority that takes the place of the one there is (rotation.py)."""
SOCKET_FILE = "coordinator.sock"
LOCK_FILE = "coordinator.lock"

log = logging.getLogger(__name__)


def default_state_directory() -> Path:
    """Return where a coordinator keeps its state."""
    return state_directory("coordinator")


def init_mesh(directory: Path, name: str) -> None:
    """Make a mesh with an authority of its own.

    Raises: InputError: there is one already, or the directory cannot be written.
    """
    check_name(name)
    check_own(directory)
    check_directory(directory)
    if is_there(directory / AUTHORITY_KEY_FILE):
        raise InputError(f"there is a mesh in {directory} already; choose another --state-dir, or remove that "
                         "directory if every node may be forgotten")  # fmt: skip
    certifying = CertifyingHere()
    authority = certifying.authority(name)
    own = certifying.own(authority, PeerName(mesh=name, role=COORDINATOR, name=name))
    save_identity(directory, Identity(authority=authority.certificate, own=own))
    try:
        Book(directory).change()
        # Last: with it the mesh is there, and a first half alone is made anew.
        write_state(directory / AUTHORITY_KEY_FILE, authority.key)
    except OSError as error:
        raise InputError(f"cannot write {directory}: {error.strerror}") from error


@dataclass
class MeshState:
    """A mesh as its coordinator knows it."""

    directory: Path
    name: str
    authority: KeyedCertificate
    book: Book
    members: Members
    observers: Observers
    invites: Invites
    certifying: CertifyingHere
    """Who makes keys and certificates."""
    next_authority: KeyedCertificate | None = None
    """Who is to sign instead of `authority`; both are believed meanwhile."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._identity = load_identity(self.directory)

    @property
    def peer(self) -> PeerName:
        """The coordinator's own name."""
        return PeerName(mesh=self.name, role=COORDINATOR, name=self.name)

    @property
    def trusted(self) -> bytes:
        """The authorities that are believed, in PEM, the newest first."""
        coming = b"" if self.next_authority is None else self.next_authority.certificate
        return coming + self.authority.certificate

    def take(self, identity: Identity) -> None:
        """Store an identity of the coordinator's and use it from now on. Raises: as save_identity."""
        with self._lock:
            save_identity(self.directory, identity)
            self._identity = identity

    def identity(self) -> Identity:
        """Return the coordinator's identity.

        Its certificate is renewed here when two thirds of its life are over, or an earlier build has made it, which
        knew no name for metrics.
        """
        with self._lock:
            own, trusted = self._identity.own, self.trusted
            is_old = needs_renewal(own.certificate) or not has_metrics_name(own.certificate)
            is_old = is_old or not any(is_signed_by(own.certificate, one) for one in certificates_in(trusted))
            if is_old or self._identity.authority != trusted:
                if is_old:
                    own = self.certifying.own(self.authority, self.peer)
                self._identity = Identity(authority=trusted, own=own)
                try:
                    save_identity(self.directory, self._identity)
                except (
                    ShardmeshError
                ) as error:  # nodes ask who signed it, not which it is: the next start makes another
                    log.warning("%s", entry("own certificate is used and not kept", error=error))
            return self._identity


def open_mesh_state(directory: Path, certifying: CertifyingHere | None = None) -> MeshState:
    """Return the mesh in a state directory. Args: certifying: who makes keys and certificates, if not this process.

    Raises: InputError: there is none, or it is damaged; NotTrusted.
    """
    certifying = certifying or CertifyingHere()
    check_directory(directory)
    authority = _authority(directory)
    book, name = _book(directory), mesh_of(authority.certificate)
    return MeshState(
        directory=directory, name=name, authority=authority, book=book, members=Members(book),
        next_authority=_coming(directory, authority),
        observers=Observers(book, directory, name, certifying), invites=Invites(book), certifying=certifying,
    )  # fmt: skip


def mend_mesh_state(state: MeshState) -> None:
    """Have every file of a mesh and its copy be whole and alike, and have a checksum; for the coordinator alone.

    Raises: as open_mesh_state; DiskFull, ResourceError: they cannot be written.
    """
    mend_identity(state.directory)
    coming = state.directory / NEXT_FILE
    if state.next_authority is None and is_there(coming):  # it signs already, and was not forgotten as the coming one
        remove_state(coming)
    state.observers.mend()
    state.book.mend()
    key = state.directory / AUTHORITY_KEY_FILE
    try:  # last: with its checksum it says that there is a list of members
        mend_state(key, lambda content: paired(content, state.authority.certificate))
    except OSError as error:
        raise failure_to_write(error)(f"cannot write {key}: {error.strerror}") from error


def _authority(directory: Path) -> KeyedCertificate:
    """Return who signs. Raises: InputError: there is none, or it cannot be read; NotTrusted: it is damaged."""
    path = directory / AUTHORITY_KEY_FILE
    if not is_there(path):
        raise InputError(f"there is no mesh in {directory}; make one with `coordinator-cli mesh init`")
    believed = load_identity(directory).authority
    try:
        return read_state(path, lambda content: paired(content, believed))
    except OSError as error:
        raise InputError(f"cannot read the mesh in {directory}: {error.strerror}; run as its owner") from error
    except DAMAGE as error:
        raise NotTrusted(f"{path} is damaged, its copy too ({error}); restore it from a backup (coordinator-cli mesh "
                         "restore): without it no device can join, and no certificate be renewed"
                         ) from error  # fmt: skip


def paired(key: bytes, believed: bytes) -> KeyedCertificate:
    """Return a key with its certificate, one of those that are believed. Raises: NotTrusted: it has none there."""
    *others, last = [KeyedCertificate(key=key, certificate=one) for one in certificates_in(believed)]
    for pair in others:
        with suppress(NotTrusted):
            check_pair(pair)
            return pair
    check_pair(last)
    return last


def _coming(directory: Path, authority: KeyedCertificate) -> KeyedCertificate | None:
    """Return the authority that is to come. Raises: InputError, NotTrusted: its file cannot be read."""
    coming = read_pair(directory / NEXT_FILE, "begin again: coordinator-cli mesh rotate")
    return None if coming is None or coming.key == authority.key else coming


def _book(directory: Path) -> Book:
    """Return the list of members. Raises: InputError: it is damaged, or gone where there must be one.

    Builds before checksums wrote none until somebody was invited, so a key without a checksum promises none.
    """
    path, models = directory / MEMBERS_FILE, directory.glob("models/*/model.json")
    promised = is_sealed(directory / AUTHORITY_KEY_FILE) or is_there(directory / OBSERVERS_FILE) or any(models)
    if promised and not is_there(path):
        raise InputError(f"{path} is gone, and with it who belongs to this mesh; {AFTER_DAMAGE}")
    return Book(directory)
