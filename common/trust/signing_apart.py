"""How does a program that stays get a new key, and a request for its certificate? A process of its own makes them.

Covers: starting it, waiting for it a while at a time, so that heartbeats go on; keeping what it made while the same key
is asked for again. Does not cover: where the key is stored before anybody sees the request (identity.py).

Run as a program it reads the key that is there already, or nothing, and writes a key and its request, in PEM: what
makes them would stay with 10 MB in a node that needs it once in sixty days.
"""

from __future__ import annotations

import subprocess
import sys
import time

from common.errors import ResourceError
from common.trust.certificates import KeyedRequest

WAIT_SECONDS = 1.5
"""At a time: with a second until the next heartbeat that is less than what a coordinator waits for one."""
MOST_SECONDS = 60.0
_MARK = b"-----BEGIN CERTIFICATE REQUEST-----"


class RequestMaker:
    """Makes one key and request after another; for one thread. Close it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._end = 0.0
        self._kept = b""
        self._unsent: bytes | None = None
        """What the process is to read, until it was given that."""
        self._made: KeyedRequest | None = None

    def make(self, kept: bytes) -> KeyedRequest:
        """Return the request for a key, or a new key and its request where `kept` is empty, or damaged.

        Raises: ResourceError: it is not made yet, or cannot be made; ask again.
        """
        if self._made is not None and kept in (b"", self._made.key):
            return self._made
        if self._kept != kept:
            self.close()
        try:
            if self._process is None:
                self._start(kept)
            made = self._wait()
        except OSError as error:
            self.close()
            raise ResourceError(f"a new key could not be made ({error.strerror}); this device is short of memory, or "
                                "of processes") from error  # fmt: skip
        self._made = made
        return made

    def forget(self) -> None:
        """Make another key next time: the one that was made is in use now."""
        self._made = None

    def close(self) -> None:
        """End the process, if there is one. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _start(self, kept: bytes) -> None:
        pipe, command = subprocess.PIPE, [sys.executable, "-m", __name__]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self._end, self._kept, self._unsent = time.monotonic() + MOST_SECONDS, kept, kept

    def _wait(self) -> KeyedRequest:
        assert self._process is not None
        try:
            given, self._unsent = self._unsent, None  # what waits a second time must not give it again
            written, _ = self._process.communicate(given, timeout=WAIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            if time.monotonic() > self._end:
                self.close()
            raise ResourceError("a new key is still being made; this device is busy") from error
        code, self._process = self._process.returncode, None
        key, mark, request = written.partition(_MARK)
        if code or not mark:
            raise ResourceError(f"a new key could not be made (the process for it ended with {code}); this device is "
                                "short of memory")  # fmt: skip
        return KeyedRequest(key=key, request=mark + request)


def main() -> None:
    """Read a key or nothing from stdin, write a key and its request to stdout."""
    from common.trust.signing import keyed_request

    made = keyed_request(sys.stdin.buffer.read())
    sys.stdout.buffer.write(made.key + made.request)


if __name__ == "__main__":
    main()
