"""Waits for a condition with a deadline, without ever waiting for nothing.

    seconds = wait_until(lambda: not path.exists(), limit_seconds=5, what="the socket is removed")

Does not cover: what to wait for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], object], *, limit_seconds: float, what: str) -> float:
    """Return how many seconds it took until `condition` was true.

    Raises: AssertionError: it was not within the limit; `what` says what did not happen.
    """
    started = time.monotonic()
    pause = threading.Event()
    while not condition():
        if time.monotonic() - started > limit_seconds:
            raise AssertionError(f"not within {limit_seconds:g} s: {what}")
        pause.wait(POLL_SECONDS)
    return time.monotonic() - started
