"""A program in a terminal of its own, which can be closed over it, and in which Ctrl-C can be pressed.

    terminal = Terminal([str(PROGRAMS / "coordinator-cli"), "load", "model"], environment)
    terminal.wait_for("is being loaded"); terminal.press(CTRL_C); code = terminal.finish()

Covers: a pseudoterminal that is the program's controlling one. Does not cover: what is on the screen, but for its text.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tests.support.waiting import wait_until

CTRL_C = b"\x03"
LIMIT_SECONDS = 60.0


class Terminal:
    """One program. Finish or close it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._screen, inside = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env={name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")},
        )
        os.close(inside)
        self._shown = b""
        self._is_closed = False
        self._told_to_end, self._end = os.pipe()
        self._reading = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._reading.start()

    @property
    def text(self) -> str:
        """What was shown so far, without line breaks: a terminal of 80 columns may break anywhere."""
        return self._shown.decode(errors="replace").replace("\r\n", " ")

    def wait_for(self, text: str) -> None:
        """Wait until a text is shown. Raises: AssertionError: it ended, or it takes too long."""
        wait_until(lambda: text in self.text or self.process.poll() is not None, limit_seconds=LIMIT_SECONDS, what=text)
        assert text in self.text, self.text

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._screen, key)

    def resize(self, *, columns: int, rows: int) -> None:
        """Give it another size, of which the program is told."""
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def kill(self) -> None:
        """End the program at once, without a word to anybody."""
        self.process.kill()
        self.finish()

    def finish(self) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait(LIMIT_SECONDS)
        self._close()
        return code

    def hang_up(self) -> int:
        """Close the terminal over the program, and return how that has ended."""
        self._close()
        return self.process.wait(LIMIT_SECONDS)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            os.close(self._end)
            self._reading.join(LIMIT_SECONDS)
            for descriptor in (self._screen, self._told_to_end):
                os.close(descriptor)

    def _read(self) -> None:
        """Read until nobody has the inside open any more, which Linux calls EIO, or until told: a terminal from which
        somebody reads is not closed.
        """
        with suppress(OSError):
            while True:
                ready, _, _ = select.select([self._screen, self._told_to_end], [], [])
                if self._screen not in ready:
                    return
                self._shown += os.read(self._screen, 65536)
