"""Do our programs end when they are told to, whichever thread hears it, and whatever hangs?

Covers: SIGTERM and SIGINT to any thread, closing that takes too long or fails.
Does not cover: lifelines (tests/e2e/test_processes_end.py), what systemd hears of it (test_service_notify.py).
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from common.errors import EXIT_INTERRUPTED

WAITING = """
import sys, threading
from common.program.lifecycle import stop_on_signals

stopping, other = threading.Event(), threading.Event()
stop_on_signals(stopping.set)
thread = threading.Thread(target=other.wait)
thread.start()
print(threading.get_native_id(), thread.native_id, flush=True)
stopping.wait(3600)  # as a program does that waits for its end
other.set()
"""
CLOSING = """
import threading
from common.program.lifecycle import close_within

def close():
    {close}

close_within(0.2, close)
print("went on", flush=True)
import os
os._exit(0)
"""
LIMIT_SECONDS = 30.0


@contextmanager
def running(program: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python's `program`, which is gone afterwards."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("thread", [0, 1], ids=["the main thread", "another thread"])
def test_a_program_ends_whichever_thread_gets_the_signal(number: signal.Signals, thread: int) -> None:
    """Python runs its handlers on the main thread only, which sleeps: it has to be woken all the same."""
    with running(WAITING) as process:
        assert process.stdout is not None
        threads = [int(word) for word in process.stdout.readline().split()]
        assert ctypes.CDLL(None).tgkill(process.pid, threads[thread], number) == 0
        assert process.wait(LIMIT_SECONDS) == 0


def test_a_second_interrupt_ends_a_program_that_takes_its_time() -> None:
    """The first says how; who waits for a drain has nothing else to press."""
    with running(WAITING.replace("stop_on_signals(stopping.set)", "stop_on_signals(lambda: None)")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "Ctrl-C again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_SECONDS) == EXIT_INTERRUPTED


def test_what_hangs_while_a_program_closes_is_told_and_left() -> None:
    """The program ends all the same, and its log shows where every thread was."""
    with running(CLOSING.format(close="threading.Event().wait()")) as process:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, out) == (0, "went on\n")
    assert "not everything has closed; please report it, with what follows seconds=0.2" in err
    assert "in close" in err


def test_what_fails_while_a_program_closes_is_raised() -> None:
    """It would be lost on a thread."""
    with running(CLOSING.format(close="raise OSError('the disk is gone')")) as process:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1] == "OSError: the disk is gone"
