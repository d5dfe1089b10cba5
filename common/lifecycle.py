"""How processes of ours end together: a lifeline pipe from parent to child, and signals that stop a program.

Covers: a child that ends when its parent does, however the parent ends; SIGTERM and SIGINT.
Does not cover: starting children (coordinator/local.py), draining a server.

A lifeline is a pipe whose writing end only the parent holds. When the parent ends, even by SIGKILL, the kernel
closes it, the child's read returns, and the child exits. Threads: one daemon thread per watched lifeline.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType


def watch_lifeline(descriptor: int, on_end: Callable[[], None]) -> None:
    """Call `on_end` from a thread of its own once the other end of the pipe `descriptor` is closed."""

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        on_end()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def is_cut(descriptor: int) -> bool:
    """Tell whether the other end of the lifeline `descriptor` is closed; never waits and reads nothing."""
    poll = select.poll()
    poll.register(descriptor, 0)  # a hang-up is reported in any case
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` when SIGTERM or SIGINT arrives. Call from the main thread."""

    def handler(number: int, frame: FrameType | None) -> None:
        stop()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
