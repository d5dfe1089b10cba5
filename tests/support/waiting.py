"""Waits for a condition with a deadline, without ever waiting for nothing, and without working hard at it.

    seconds = wait_until(lambda: not path.exists(), limit_seconds=5, what="the socket is removed")

Does not cover: what to wait for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

POLL_SECONDS = 0.01
MOST_OF_THE_TIME = 0.2
"""So much of it goes into looking: a look may be a call to the very program that is waited for."""
LONGEST_PAUSE_SECONDS = 0.2
"""After a look that took long since the machine is busy."""


def wait_until(condition: Callable[[], object], *, limit_seconds: float, what: str) -> float:
    """Return how many seconds it took until `condition` was true.

    Raises: AssertionError: it was not within the limit; `what` says what did not happen.
    """
    started = time.monotonic()
    pause = threading.Event()
    looked = started
    while not condition():
        now = time.monotonic()
        if now - started > limit_seconds:
            raise AssertionError(f"not within {limit_seconds:g} s: {what}")
        pause.wait(min(max(POLL_SECONDS, (now - looked) * (1 / MOST_OF_THE_TIME - 1)), LONGEST_PAUSE_SECONDS))
        looked = time.monotonic()
    return time.monotonic() - started
