"""A lock that threads of Python and C take alike: C's own, where there is a library of ours.

    lock = new_lock()
    with lock: ...
    address_of(lock)            # for C; None: there is no C that could take it

Covers: the names of threading.Lock. Does not cover: what it is for (shardnode). The thread that takes one gives it
back; who waits for it lets others have the interpreter.
"""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType
from typing import Protocol

from common.native.library import shared


class Lock(Protocol):
    """What both kinds have."""

    def acquire(self, blocking: bool = True) -> bool:
        """Take it; tell whether that was possible."""

    def release(self) -> None:
        """Give it back."""

    def locked(self) -> bool:
        """Tell whether any thread has it."""

    def __enter__(self) -> bool:
        """Take it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""


class NativeLock:
    """C's."""

    def __init__(self, functions: ctypes.CDLL) -> None:
        """Raises: MemoryError: there is none for it."""
        self._free, self._take, self._give = (
            functions.shardmesh_lock_free, functions.shardmesh_lock_take, functions.shardmesh_lock_give
        )  # fmt: skip
        self.address: int = functions.shardmesh_lock_new()
        if not self.address:
            raise MemoryError("there is no memory for a lock")

    def __del__(self) -> None:
        """Let its memory go; whoever has told C of it keeps this."""
        if address := getattr(self, "address", None):
            self._free(address)

    def acquire(self, blocking: bool = True) -> bool:
        """See Lock."""
        return bool(self._take(self.address, blocking))

    def release(self) -> None:
        """See Lock."""
        self._give(self.address)

    def locked(self) -> bool:
        """See Lock."""
        if self._take(self.address, False):
            self._give(self.address)
            return False
        return True

    def __enter__(self) -> bool:
        """See Lock."""
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See Lock."""
        self.release()


def new_lock() -> Lock:
    """Return a lock that nobody has."""
    functions = shared().functions
    return threading.Lock() if functions is None else NativeLock(functions)


def address_of(lock: Lock) -> int | None:
    """Return where C finds a lock, valid while it is; None: it is Python's alone."""
    return lock.address if isinstance(lock, NativeLock) else None
