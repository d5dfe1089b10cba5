"""Where does a server listen that its own process alone may reach, with nothing left behind however it ends?

Covers: a socket whose name is gone once the server listens, and names by which its callers are told apart. Does not
cover: what is served (gate.py).

Linux reaches a socket that has no name any more through a descriptor of it, and lets the callers' sockets have names
that are in no directory. Elsewhere a directory stays until the process ends in order, which only this user may enter.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import InputError

IS_NAMELESS = sys.platform == "linux"


class PrivatePlace:
    """A place for one server. Raises on construction: InputError: there is no room for a socket."""

    def __init__(self) -> None:
        try:
            self._directory = Path(tempfile.mkdtemp(prefix="shardmesh-"))
        except OSError as error:
            raise InputError(f"cannot make a directory for a socket ({error.strerror}); set TMPDIR to a place that can "
                             "be written") from error  # fmt: skip
        self.path = str(self._directory / "server")
        """Where the server has to listen before anybody is let in."""
        self._descriptor = -1

    def listens(self) -> None:
        """Take the name away from the server, which listens now."""
        if IS_NAMELESS:
            self._descriptor = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
            self.path = f"/proc/self/fd/{self._descriptor}"
            shutil.rmtree(self._directory, ignore_errors=True)

    @contextmanager
    def connection(self, number: int) -> Iterator[tuple[socket.socket, str]]:
        """Yield a socket to reach the server with, not connected yet, and what gRPC will call it.

        Args: number: another one each time. Raises: OSError.
        """
        with socket.socket(socket.AF_UNIX) as made:
            if IS_NAMELESS:
                name = f"shardmesh-{os.getpid()}-{id(self)}-{number}"
                made.bind(f"\0{name}")
                yield made, f"unix-abstract:{name}"
                return
            name = str(self._directory / str(number))
            made.bind(name)
            try:
                yield made, f"unix:{name}"
            finally:
                os.unlink(name)

    def close(self) -> None:
        """Remove what there is. May be called twice."""
        shutil.rmtree(self._directory, ignore_errors=True)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)
