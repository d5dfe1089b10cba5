"""Starts one of our programs in a forked child, which shares every page of what this process has imported.

    child = ForkedProgram("shardnode.pool", ["DIRECTORY"])

Covers: pipes as its stdin and stdout, a process group of its own, waiting for its end.
Does not cover: what the program does; starting it anew where forking is not safe (subprocess.Popen does).

Imports are 35 MB of memory, and half a second, that every process pays for which imports them by itself. Fork only a
process that has run nothing yet: gRPC does not survive a fork.
"""

from __future__ import annotations

import gc
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

from common.machine.operating_system import leave_foreground

POLL_SECONDS = 0.005


class ForkedProgram:
    """A child that runs a module as `python -m` does; what is needed of subprocess.Popen has the same names."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        """Fork. Raises: OSError: no more processes or descriptors."""
        child_stdin, parent_stdin = os.pipe()
        parent_stdout, child_stdout = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()  # pages that the collector never touches stay shared
        # Ctrl-C goes to all processes in a terminal's foreground, the child too before it has a group of its own.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(parent_stdin)
            os.close(parent_stdout)
            _run(module, arguments, child_stdin, child_stdout)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(child_stdin)
        os.close(child_stdout)
        self.stdin = open(parent_stdin, "wb", buffering=0)  # noqa: SIM115 - closed by whoever ends the program
        self.stdout = open(parent_stdout, "rb", buffering=0)  # noqa: SIM115 - the same
        self._has_ended = False

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end. Raises: TimeoutError: it goes on after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._has_ended:
            options = 0 if deadline is None else os.WNOHANG
            self._has_ended = os.waitpid(self.pid, options)[0] != 0
            if not self._has_ended and deadline is not None:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"process {self.pid} goes on")
                time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL unless it was waited for already."""
        if not self._has_ended:
            os.kill(self.pid, signal.SIGKILL)


def _run(module: str, arguments: Sequence[str], stdin: int, stdout: int) -> NoReturn:
    """Become the program, and never return to whoever forked."""
    code = 1
    try:
        leave_foreground()
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.close(stdin)
        os.close(stdout)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - the edge of a process
        traceback.print_exc()
    finally:
        os._exit(code)
