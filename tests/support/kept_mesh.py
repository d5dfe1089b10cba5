"""Members and tokens of one state directory, with clocks that stand until a test moves them; certificates are names.

    mesh = KeptMesh(directory)
    mesh.let_in("kitchen", serial="a1", key="mine")
    KeptMesh(directory)                          # as a coordinator that was started again

Does not cover: real certificates and calls (mesh_members.py).
"""

from __future__ import annotations

from pathlib import Path

from coordinator.membership.book import Book, Device, Issued
from coordinator.membership.invites import Invites
from coordinator.membership.members import Members

PI = Device(version="1", core_count=4, memory_bytes=8 << 30, free_memory_bytes=6 << 30, free_disk_bytes=1 << 40)


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class KeptMesh:
    """Members and tokens of one state directory, with clocks that stand."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.book = Book(directory, self.clock, self.clock)
        self.members, self.invites = Members(self.book), Invites(self.book)

    def let_in(self, name: str, serial: str, key: str = "key", *, secret: bytes | None = None) -> str:
        """Have a device join, with a new token unless one is given; return the serial that it gets."""
        secret = self.invites.make(60) if secret is None else secret
        return self.members.admit(name, secret, key, PI, lambda: issued(serial)).serial

    def renew(self, name: str, shown: str, serial: str, key: str) -> str:
        """Have a node renew; return the serial that it gets."""
        return self.members.renew(name, shown, key, lambda: issued(serial)).serial


def issued(serial: str) -> Issued:
    """Return a certificate of this serial that lasts."""
    return Issued(certificate=b"certificate", serial=serial, ends=1 << 40)
