"""How processes of ours end: a lifeline pipe from parent to child, signals that stop a program, closing in time.

Covers: a child that ends when its parent does, however the parent ends; SIGTERM and SIGINT; what hangs at the end.
Does not cover: starting children (coordinator/local/pool.py), draining a server.

A lifeline is a pipe whose writing end only the parent holds. When the parent ends, even by SIGKILL, the kernel
closes it, the child's read returns, and the child exits.
Threads: one daemon thread per watched lifeline, one for signals, one that closes.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from types import FrameType

from common.errors import EXIT_INTERRUPTED
from common.program.logs import entry

DRAIN_SECONDS = 20.0
"""How long answers under way may go on once a service is told to end."""
LAST_WORDS_SECONDS = 2.0
"""What ends in words then has so long until they have arrived."""
CLOSE_SECONDS = 27.0
"""Of both, and of a disk that is slow to let go; systemd waits 30 s (deploy/systemd)."""
STACKS_SECONDS = 2.0
"""Beyond the limit of closing: no thread of Python's runs any more then, and the process is ended from outside them."""

log = logging.getLogger(__name__)


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
    """Call `stop`, from a thread of its own, when SIGTERM or SIGINT arrives. Call from the main thread.

    Python runs a handler on the main thread only, once that wakes. A signal that the kernel gives to another thread
    does not wake it, and a service would be killed long after it was told to stop. A second Ctrl-C ends the process.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)

    def handler(number: int, frame: FrameType | None) -> None:
        """Do nothing here: any thread has written the signal's number to the socket by now."""

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)

    def wait() -> None:
        is_interrupted = False
        while numbers := reading.recv(1):
            log.info("%s", entry("told to end", signal=signal.Signals(numbers[0]).name))
            if numbers[0] == signal.SIGINT:
                if is_interrupted:
                    os._exit(EXIT_INTERRUPTED)
                is_interrupted = True
                print("ending, once what runs has ended; Ctrl-C again ends it now", file=sys.stderr, flush=True)
            stop()

    threading.Thread(target=wait, name="signals", daemon=True).start()


def close_within(limit_seconds: float, close: Callable[[], None]) -> None:
    """Call `close`; what hangs in it is told to the log, with where every thread is, and left.

    End the process next, by os._exit: the interpreter's own end waits for what hangs. Raises: what `close` raises.
    """
    faulthandler.dump_traceback_later(limit_seconds + STACKS_SECONDS, exit=True)
    closed = futures.ThreadPoolExecutor(1, thread_name_prefix="closing").submit(close)
    futures.wait([closed], limit_seconds)
    faulthandler.cancel_dump_traceback_later()
    if not closed.done():
        log.error("%s", entry("not everything has closed; please report it, with what follows", seconds=limit_seconds))
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        return
    closed.result()
