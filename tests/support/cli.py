"""Our programs as a person runs them, and a look at what they leave behind.

    shell = Shell()
    finished = shell.run("coordinator-cli", "generate", "--model", str(model), "--prompt", "hi")
    running = shell.start("shardnode", "--slice-dir", str(directory))
    shell.leftovers()                       # processes and temporary files; empty when all is well

Covers: real processes with outputs in files, everything that descends from them wherever it was re-parented to,
and, where a process of its own would prove nothing more, the same program inside this process (`run_here`).
Does not cover: models (tiny_checkpoint.py), waiting for conditions (waiting.py).
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import pytest

from common.program.command_line import run_program
from tests.support.waiting import wait_until

Name = Literal["coordinator-cli", "coordinator", "shardnode"]

PROGRAMS = Path(sys.executable).parent
MARK = "SHARDMESH_TEST_SHELL"
"""Environment variable that every descendant inherits: a process whose parent was killed is found by it."""
NO_TORCH = """
import sys
with open({log!r}, "a") as log:
    print(sys.orig_argv, file=log)
raise ModuleNotFoundError("No module named 'torch'", name="torch")
"""
RUN_LIMIT_SECONDS = 60.0
"""For a whole run on a busy machine; not a promise of the product."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A program that has ended."""

    code: int
    out: str
    err: str

    def error_line(self, program: Name, code: int) -> str:
        """Return the one line on stderr, once it is sure that this is an error as a person should see it.

        A note that a node was waited for, which came before, does not count.
        """
        lines = [line for line in self.err.splitlines() if line.strip() and not line.startswith("note: waiting for ")]
        assert len(lines) == 1, f"{len(lines)} lines on stderr:\n{self.err}"
        assert lines[0].startswith(f"{program}: "), lines[0]
        assert (self.code, "internal error" in lines[0]) == (code, False), (self.code, lines[0])
        return lines[0]


class Running:
    """A program that runs, or has ended and was not waited for."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        """What stands on stdout so far."""
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        """What stands on stderr so far."""
        return self._err.read_text(errors="replace")

    def finish(self, limit_seconds: float = RUN_LIMIT_SECONDS) -> Finished:
        """Wait for the end. Raises: subprocess.TimeoutExpired: it does not come."""
        code = self.process.wait(limit_seconds)
        return Finished(code=code, out=self.out, err=self.err)

    def wait_for_text(self) -> None:
        """Wait until an answer is on its way."""
        wait_until(
            lambda: self.out or self.process.poll() is not None, limit_seconds=RUN_LIMIT_SECONDS, what="text on stdout"
        )
        assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.err}"

    def nodes(self) -> list[psutil.Process]:
        """Return the local shard nodes, in rank order: the children of the pool, which started after all else."""
        pool = max(psutil.Process(self.process.pid).children(), key=lambda child: child.create_time())
        return sorted(pool.children(), key=lambda child: child.pid)


class Shell:
    """Starts programs in an environment of their own. Close it."""

    def __init__(self, checkout: Path | None = None) -> None:
        """Args: checkout: whose programs, if not this one's."""
        self._checkout = checkout
        self._mark = uuid.uuid4().hex
        # Not pytest's directory: a Unix socket's path has 108 bytes at most.
        self._home = Path(tempfile.mkdtemp(prefix="e2e-"))
        self._temporary = self._home / "tmp"
        self._temporary.mkdir()
        self._torch_log = self._home / "torch.log"
        self._path = [self._home / "without_torch"]
        for directory in self._path:
            directory.mkdir()
            (directory / "torch.py").write_text(NO_TORCH.format(log=str(self._torch_log)))
        self._started: list[Running] = []
        self._numbers = itertools.count()  # several threads may start programs

    @property
    def home(self) -> Path:
        """A directory with a short path, removed at the end."""
        return self._home

    def start(
        self, program: Name, *arguments: str | bytes, stdout: int | None = None, inside: Sequence[str] = ()
    ) -> Running:
        """Start a program.

        Args: stdout: a file descriptor instead of the file that `Running.out` reads; inside: what goes before the
        command (network_hosts.py).
        """
        return self.start_command([*inside, str(self.program(program)), *arguments], stdout=stdout)

    def program(self, program: Name) -> Path:
        """Return where a program lies."""
        return (PROGRAMS if self._checkout is None else self._checkout / ".venv" / "bin") / program

    def start_command(self, command: Sequence[str | bytes], *, stdout: int | None = None) -> Running:
        """Start any command."""
        number = next(self._numbers)
        out, err = self._home / f"out{number}", self._home / f"err{number}"
        own = os.environ.get("PYTHONPATH") if self._checkout is None else str(self._checkout)
        path = os.pathsep.join([*map(str, self._path), *filter(None, [own])])
        environment = {**os.environ, MARK: self._mark, "TMPDIR": str(self._temporary), "PYTHONPATH": path}
        with open(out, "wb") as out_file, open(err, "wb") as err_file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL, stdout=out_file if stdout is None else stdout, stderr=err_file,
                env=environment, cwd=self._home,
            )  # fmt: skip
        self._started.append(Running(process, out, err))
        return self._started[-1]

    def run(self, program: Name, *arguments: str | bytes, inside: Sequence[str] = ()) -> Finished:
        """Start a program and wait for its end."""
        return self.start(program, *arguments, inside=inside).finish()

    def allow_torch(self) -> None:
        """Let what is started from now on find torch; before, importing it fails, and `torch_imports` says who did."""
        self._path.clear()

    @property
    def torch_imports(self) -> str:
        """Which commands have tried to import torch; empty while none has."""
        return self._torch_log.read_text() if self._torch_log.exists() else ""

    def running(self) -> list[Running]:
        """Return what was started and has not ended."""
        return [started for started in self._started if started.process.poll() is None]

    def leftovers(self) -> list[str]:
        """Name every process that descends from one of ours and lives, and every temporary file."""
        found = []
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):  # it has ended since
                found.append(f"process {process.pid}: {process.name()}")
        return [*found, *os.listdir(self._temporary)]

    def wait_until_nothing_is_left(self, limit_seconds: float) -> float:
        """Return how long it took. Raises: AssertionError: something is left after the limit."""
        started = time.monotonic()
        while (left := self.leftovers()) and time.monotonic() - started < limit_seconds:
            wait_until(lambda: self.leftovers() != left, limit_seconds=limit_seconds, what=f"gone: {left}")
        assert not left, f"left after {limit_seconds:g} s: {left}"
        return time.monotonic() - started

    def close(self) -> None:
        """Kill what is left, so that one failed test spoils no other."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):  # it has ended since
                process.kill()
        for running in self._started:
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self._mark:
                    found.append(process)
            except psutil.Error:
                continue  # it ended, or is somebody else's
        return found


def run_here(
    program: Name, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> Finished:
    """Run a program inside this process through its real entry, `run_program`; its children are real."""
    from coordinator.cli.main import program as coordinator_cli
    from shardnode.cli import app as shardnode

    monkeypatch.setattr(sys, "argv", [program, *arguments])
    capture.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_program(coordinator_cli(arguments) if program == "coordinator-cli" else shardnode, program)
    out, err = capture.readouterr()
    assert isinstance(ended.value.code, int)
    return Finished(code=ended.value.code, out=out, err=err)
