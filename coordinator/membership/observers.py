"""Who may read the metrics of the mesh, and nothing else? Names, and the certificates that are good for them.

Covers: letting in, letting in again, removing; an authority of their own.
Does not cover: how they are asked (services.py), the file (book.py), what a metrics page looks at
(common/trust/metrics_door.py). Safe to call from several threads.

What observers show is signed by an authority that nothing trusts but metrics pages: no gRPC listener lets them finish a
handshake, so they hold no worker there either. It is made with the first of them.
A certificate is good when it is one of an observer's and has not ended; nodes hear of all of them with each heartbeat.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from common.errors import InputError, NameTaken, NoSuchNode
from common.program.state_files import mend_state, write_state
from common.trust.certificates import KeyedCertificate, check_name
from common.trust.certifying_apart import CertifyingHere
from common.trust.identity import good_pair, not_written, read_pair
from coordinator.membership.book import Book, Issued, Kept, Observer

AUTHORITY_FILE = "observers.pem"
MAX_OBSERVERS = 32
MOST_SERIALS = 2
"""Of one observer: the newest, and the one before, so that its files can be replaced without a gap."""


class Observers:
    """The observers of one mesh."""

    def __init__(self, book: Book, directory: Path, mesh: str, certifying: CertifyingHere) -> None:
        """Read their authority. Args: certifying: who makes one.

        Raises: InputError, NotTrusted: it cannot be used."""
        self._book, self._path, self._mesh = book, directory / AUTHORITY_FILE, mesh
        self._authority, self._certifying = read_pair(self._path, "invite observers anew"), certifying
        self._making = threading.Lock()

    @property
    def authority(self) -> bytes:
        """The certificate of their authority, in PEM; empty while there was never an observer."""
        return b"" if self._authority is None else self._authority.certificate

    def all(self) -> list[Observer]:
        """Return the observers, by name."""
        return sorted(self._book.kept.observers.values(), key=lambda observer: observer.name)

    def has(self, name: str) -> bool:
        """Tell whether an observer is called so."""
        return name in self._book.kept.observers

    def knows(self, serial: str) -> bool:
        """Tell whether a certificate is a good one of an observer; TLS looks at when it ends."""
        return any(serial in observer.serials for observer in self._book.kept.observers.values())

    def good_serials(self) -> list[str]:
        """Return the certificates that nodes believe: at most MAX_OBSERVERS * MOST_SERIALS."""
        return [serial for observer in self.all() for serial in observer.serials]

    def admit(self, name: str, issue: Callable[[KeyedCertificate], Issued]) -> Issued:
        """Return a new certificate of an observer; the one that it had last stays good as well.

        Args: issue: asked with the authority that signs it. Raises: InputError, NameTaken; DiskFull, ResourceError: it
        cannot be written down; what `issue` raises.
        """
        check_name(name)
        self._check_room(name)
        with self._making:  # not while the book is locked: heartbeats would wait for it
            issued = issue(self._made_authority())
        with self._book.lock:
            kept = self._check_room(name)
            before = kept.observers[name].serials if name in kept.observers else ()
            serials = (*before, issued.serial)[-MOST_SERIALS:]
            observer = Observer(name=name, serials=serials, certificate_ends=issued.ends)
            self._book.change(observers={**kept.observers, name: observer})
            return issued

    def _check_room(self, name: str) -> Kept:
        """Return the book as it is, where there is a place for an observer. Raises: NameTaken, InputError."""
        kept = self._book.kept
        if name in kept.members:
            raise NameTaken(f"there is a node called {name}; choose another name for the observer")
        if name not in kept.observers and len(kept.observers) >= MAX_OBSERVERS:
            raise InputError(f"a mesh has at most {MAX_OBSERVERS} observers; remove some (coordinator-cli mesh remove "
                             "NAME)")  # fmt: skip
        return kept

    def remove(self, name: str) -> None:
        """Revoke every certificate of an observer. Raises: NoSuchNode; ResourceError: it cannot be written down."""
        with self._book.lock:
            self._book.settle()
            kept = self._book.kept
            if name not in kept.observers:
                raise NoSuchNode(f"there is no observer called '{name[:60]}' in this mesh")
            self._book.change(observers={other: kept.observers[other] for other in kept.observers if other != name})

    def mend(self) -> None:
        """Have the file and its copy be whole and alike; for the coordinator alone. Raises: as at birth; DiskFull."""
        try:
            mend_state(self._path, good_pair)
        except OSError as error:
            raise not_written(self._path.parent, error) from error

    def _made_authority(self) -> KeyedCertificate:
        if self._authority is None:
            made = self._certifying.authority(self._mesh, of="observers of ")
            try:
                write_state(self._path, made.key + made.certificate)
            except OSError as error:
                raise not_written(self._path.parent, error) from error
            self._authority = made
        return self._authority
