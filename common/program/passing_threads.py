"""Threads that are started when work needs them and end when they have had none for a while.

    pool = PassingThreads(128, "rpc")
    pool.submit(answer, call)            # what concurrent.futures says of an executor holds

Covers: what gRPC's server asks of a pool. Does not cover: interrupting what runs.

Why: ThreadPoolExecutor keeps each thread that it once had. A crowd of calls that say nothing left a coordinator with 50
more threads, for as long as it ran.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

IDLE_SECONDS = 5.0


class PassingThreads(Executor):
    """A pool of at most so many threads, which keep no program alive."""

    def __init__(self, most: int, name: str, idle_seconds: float = IDLE_SECONDS) -> None:
        """Args: name: what the threads' names begin with; idle_seconds: so long a thread waits for work."""
        self._most, self._name, self._idle_seconds = most, name, idle_seconds
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._idle_count = 0
        self._is_over = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See Executor. Raises: RuntimeError: after `shutdown`."""
        future: Future[Any] = Future()
        with self._changed:
            if self._is_over:
                raise RuntimeError("this pool takes no more work")
            self._work.append((future, lambda: fn(*args, **kwargs)))
            if len(self._work) <= self._idle_count:
                self._changed.notify()
            elif len(self._threads) < self._most:
                thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.add(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See Executor."""
        with self._changed:
            self._is_over = True
            while cancel_futures and self._work:
                self._work.popleft()[0].cancel()
            self._changed.notify_all()
            left = list(self._threads)
        for thread in left if wait else ():
            thread.join()

    def _run(self) -> None:
        while (found := self._next()) is not None:
            future, call = found
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - the future's, whatever it is
                    future.set_exception(error)
            del found, future, call  # they may hold much, and the next work may be long in coming

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        """Return the next work; None: this thread is to end."""
        until = time.monotonic() + self._idle_seconds
        with self._changed:
            self._idle_count += 1
            while not self._work and not self._is_over and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._idle_count -= 1
            if self._work:
                return self._work.popleft()
            self._threads.discard(threading.current_thread())
            return None
