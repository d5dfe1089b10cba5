"""How is each contender kept alive in a process of its own, and idle until it has its turn?

Covers: starting, asking, failures with their traceback, ending whatever happens here.
Does not cover: what a worker does (contenders.py, star.py, slicing.py).
A worker opens what it needs, says so, then answers one request after another from a pipe; waiting costs it nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from common.machine.operating_system import end_with_parent
from tests.bench.report import BenchBroken

END_LIMIT_SECONDS = 15.0

Opener = Callable[..., AbstractContextManager[Callable[..., Any]]]
"""A function of a module that opens what a worker needs and gives the function that answers requests."""


@dataclass(frozen=True)
class _Failure:
    text: str


class Worker:
    """One process. Close it; if we die first, it ends by itself."""

    def __init__(self, name: str, opener: Opener, *args: Any) -> None:
        """Start the process, which opens things while we do other work; see `wait_until_ready`."""
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, opener, args), name=name)
        self._process.start()
        theirs.close()

    @property
    def process_id(self) -> int:
        return self._process.pid or 0  # it runs since __init__

    def wait_until_ready(self) -> None:
        """Raises: BenchBroken: it could not open what it needs."""
        self._receive()

    def ask(self, *request: Any) -> Any:
        """Return the answer to one request. Raises: BenchBroken: the worker failed."""
        self._connection.send(request)
        return self._receive()

    def close(self) -> None:
        """End the process and wait for it."""
        self._connection.close()
        self._process.join(END_LIMIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise BenchBroken(f"{self.name} ended without a word") from None
        if isinstance(answer, _Failure):
            raise BenchBroken(f"{self.name} failed:\n{answer.text}")
        return answer


def _serve(connection: Connection, opener: Opener, args: tuple[Any, ...]) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the benchmark, and that closes the pipe
    try:
        with opener(*args) as answer:
            connection.send("ready")
            while (request := _next_request(connection)) is not None:
                connection.send(answer(*request))
    except Exception:  # noqa: BLE001 - the edge of a process: whoever asked hears of it, if anybody is there
        with contextlib.suppress(ConnectionError):
            connection.send(_Failure(traceback.format_exc()))


def _next_request(connection: Connection) -> tuple[Any, ...] | None:
    """Return the next request; None once nobody asks any more."""
    try:
        request: tuple[Any, ...] = connection.recv()
        return request
    except (EOFError, ConnectionError):
        return None
