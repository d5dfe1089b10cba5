"""Which key was pressed, at once and unseen, or what else has happened to this terminal? For a view that lives.

Covers: keys, resizing, being told to end, being stopped by Ctrl-Z; a terminal that is afterwards what it was before.
Does not cover: what is shown. Threads: the main one only, where signals arrive.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import tty
from types import FrameType, TracebackType
from typing import Any

TAKEN = (signal.SIGWINCH, signal.SIGTERM, signal.SIGTSTP)


class Keys:
    """Use as a context manager."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno() if sys.stdin.isatty() else -1
        self._mode: list[Any] | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Keys:
        self._waking, self._written = socket.socketpair()
        self._written.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _nothing) for number in TAKEN}
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._waking.close()
        self._written.close()

    def wait(self, seconds: float) -> str | signal.Signals | None:
        """Return the next key, or the signal that has arrived; None when neither has come within so many seconds."""
        inputs = [self._waking.fileno(), *([self._input] if self._input >= 0 else [])]
        ready, _, _ = select.select(inputs, [], [], max(0.0, seconds))
        if self._waking.fileno() in ready:
            numbers = self._waking.recv(1)
            return signal.Signals(numbers[0])
        if ready:
            pressed = os.read(self._input, 1)
            if not pressed:
                self._input = -1  # nobody types there any more
            return pressed.decode(errors="replace")
        return None

    def stop_here(self) -> None:
        """Let the shell have its terminal until it has us go on (fg)."""
        self._restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._begin()

    def _begin(self) -> None:
        if self._input >= 0:
            self._mode = termios.tcgetattr(self._input)
            tty.setcbreak(self._input)

    def _restore(self) -> None:
        if self._mode is not None:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._mode)
            self._mode = None


def _nothing(number: int, frame: FrameType | None) -> None:
    """Do nothing here: the signal's number is in the socket by now."""
