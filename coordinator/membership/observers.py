"""Who may read the metrics of the mesh, and nothing else? Names, and the certificates that are good for them.

Covers: letting in, letting in again, removing. Does not cover: how they are asked (services.py), the file (book.py),
what a metrics page looks at (common/trust/metrics_door.py). Safe to call from several threads.

A certificate is good when it is one of an observer's and has not ended; nodes hear of all of them with each heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable

from common.errors import InputError, NameTaken, NoSuchNode
from common.trust.certificates import check_name
from coordinator.membership.book import Book, Issued, Observer

MAX_OBSERVERS = 32
MOST_SERIALS = 2
"""Of one observer: the newest, and the one before, so that its files can be replaced without a gap."""


class Observers:
    """The observers of one mesh."""

    def __init__(self, book: Book) -> None:
        self._book = book

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

    def admit(self, name: str, issue: Callable[[], Issued]) -> Issued:
        """Return a new certificate of an observer; the one that it had last stays good as well.

        Raises: InputError, NameTaken; ResourceError: it cannot be written down; what `issue` raises.
        """
        check_name(name)
        with self._book.lock:
            kept = self._book.kept
            if name in kept.members:
                raise NameTaken(f"there is a node called {name}; choose another name for the observer")
            if name not in kept.observers and len(kept.observers) >= MAX_OBSERVERS:
                raise InputError(f"a mesh has at most {MAX_OBSERVERS} observers; remove some (coordinator-cli mesh "
                                 "remove NAME)")  # fmt: skip
            issued = issue()
            before = kept.observers[name].serials if name in kept.observers else ()
            serials = (*before, issued.serial)[-MOST_SERIALS:]
            observer = Observer(name=name, serials=serials, certificate_ends=issued.ends)
            self._book.change(observers={**kept.observers, name: observer})
            return issued

    def remove(self, name: str) -> None:
        """Revoke every certificate of an observer. Raises: NoSuchNode; ResourceError: it cannot be written down."""
        with self._book.lock:
            self._book.settle()
            kept = self._book.kept
            if name not in kept.observers:
                raise NoSuchNode(f"there is no observer called '{name[:60]}' in this mesh")
            self._book.change(observers={other: kept.observers[other] for other in kept.observers if other != name})
