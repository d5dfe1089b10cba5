"""Starts the processes in which models' tokenizers run: the asking end of nursery_program.py.

Covers: taking the one that was forked early, starting one at any time, asking it for a reader, its end.
Does not cover: forking it early (nursery_early.py), what readers and workers are asked (apart.py).
Threads: any.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from common.errors import ResourceError
from common.machine.operating_system import private_bytes
from coordinator.tokenizer.apart_messages import receive
from coordinator.tokenizer.nursery_early import take_early

MOST_SECONDS = 20.0
"""For a fork, which takes milliseconds; for Python to start, where there is no nursery yet."""
END_SECONDS = 2.0


class Nursery:
    """One for a program. Close it; if this process dies first, all that came of it ends by itself."""

    def __init__(self, early: tuple[int, socket.socket] | None = None) -> None:
        """Args: early: one that runs already, its process and our end of its socket; otherwise it is started when it is
        first needed.
        """
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._process_id = 0
        self.own_bytes = 0
        """Memory of the nursery that this process does not share, as it was before its last fork."""
        self._is_closed = False
        if early is not None:
            self._keep(*early)
        os.register_at_fork(after_in_child=_letting_go(weakref.ref(self)))

    @classmethod
    def of_program(cls) -> Nursery:
        """Return the one that this program began with (`begin_early`); otherwise a new one."""
        return cls(take_early())

    def reader(self, model: Path) -> Child:
        """Return a process that has begun to read a model's tokenizer. Raises: ResourceError."""
        request = {"model": os.path.abspath(model)}
        with self._lock:
            for _ in range(2):
                if self._is_closed:
                    break
                if self._connection is None:
                    self._start()
                assert self._connection is not None  # it was started
                with contextlib.suppress(psutil.Error):
                    self.own_bytes = private_bytes(self._process_id)
                with contextlib.suppress(OSError):
                    if (child := child_of(self._connection, request)) is not None:
                        return child
                self._end()
        raise ResourceError("a process for the model's tokenizer could not be started; the device is short of memory "
                            "or of processes")  # fmt: skip

    def close(self) -> None:
        """End it and all that came of it. May be called twice."""
        with self._lock:
            self._is_closed = True
            self._end()

    def _keep(self, process_id: int, connection: socket.socket) -> None:
        self._process_id, self._connection = process_id, connection
        weakref.finalize(self, connection.close)  # as in Child

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-m", "coordinator.tokenizer.nursery_program"], stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            ours.close()
            raise ResourceError(
                f"a process for the model's tokenizer could not be started: {error.strerror}"
            ) from error
        process.returncode = 0  # `_end` waits for it, as for one that was forked; Popen need not
        self._keep(process.pid, ours)

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        process_id, self._process_id = self._process_id, 0
        if not process_id:
            return
        deadline = time.monotonic() + END_SECONDS
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(process_id, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    os.kill(process_id, signal.SIGKILL)
                    os.waitpid(process_id, 0)
                    return
                time.sleep(0.001)

    def let_go(self) -> None:
        """Close this process's end alone: in a child of who has the nursery, which would keep it alive."""
        if self._connection is not None:
            self._connection.close()


class Child:
    """One process that came of a nursery, and our end of its socket; it ends when that is closed, or nobody has it."""

    def __init__(self, process_id: int, connection: socket.socket) -> None:
        self.process_id = process_id
        self.connection = connection
        weakref.finalize(self, connection.close)  # not __del__: in a cycle the socket might go first, and complain

    def close(self) -> None:
        """Let it end."""
        self.connection.close()


def child_of(parent: socket.socket, request: dict[str, Any]) -> Child | None:
    """Have a nursery or a reader fork; None where it is gone. Raises: OSError: the same; no more descriptors."""
    ours, theirs = socket.socketpair()
    parent.settimeout(MOST_SECONDS)
    try:
        with theirs:
            socket.send_fds(parent, [json.dumps(request).encode()], [theirs.fileno()])
        told = receive(parent)
    except OSError:
        ours.close()
        raise
    if told is None or not isinstance(told.get("process_id"), int):
        ours.close()
        return None
    return Child(told["process_id"], ours)


def _letting_go(nursery: weakref.ref[Nursery]) -> Callable[[], None]:
    def let_go() -> None:
        if (one := nursery()) is not None:
            one.let_go()

    return let_go
