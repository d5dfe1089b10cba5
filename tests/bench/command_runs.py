"""What does one run of our command line give: its JSON document, and the memory of everything it started?

Covers: running in a memory group, with its peak and what the kernel ended; where there are no groups, the largest sum
of proportional set sizes that was sampled over the command and all that descends from it.
Does not cover: which commands (contender_table.py), groups (memory_group.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psutil

from common.machine.operating_system import end_with_parent, process_memory, usable_core_count
from tests.bench.contenders import busy_seconds
from tests.bench.memory_group import MemoryGroup, NoMemoryGroups
from tests.bench.report import BenchBroken

PROGRAM = [sys.executable, "-c", "from coordinator.cli.main import main; main()"]
SAMPLE_SECONDS = 0.5
LIMIT_SECONDS = 1800.0

Sample = Callable[[float, Sequence[psutil.Process]], None]
"""Is called every half second with the seconds since the start and all processes of the command."""


@dataclass(frozen=True, kw_only=True)
class CommandRun:
    """One run that ended well."""

    document: dict[str, Any]
    seconds: float
    peak_bytes: int
    measured_by: str
    """What `peak_bytes` is: the group's peak, or the sum of what was sampled."""
    token_ids: tuple[int, ...]
    others_share: float
    """Part of the cores' time that other programs took meanwhile."""

    @property
    def seconds_per_token(self) -> float:
        """Mean over all tokens after the first."""
        seconds: list[float] = self.document["timings"]["seconds_per_token"]
        return sum(seconds) / len(seconds)

    def memory(self, key: str, *, of_nodes_only: bool = False) -> list[int]:
        """Return one number of every process that tells it, the coordinator's first."""
        names = [name for name in self.document["memory"] if name.startswith("node") or not of_nodes_only]
        return [self.document["memory"][name][key] for name in names if key in self.document["memory"][name]]


def run_command(arguments: Sequence[str], limit_bytes: int | None = None, sample: Sample | None = None) -> CommandRun:
    """Run `coordinator-cli` with `--json`, in a group of its own if this machine has them.

    Raises: BenchBroken: it failed, or the kernel ended part of it for want of memory.
    """
    command = [*PROGRAM, *arguments]
    with ExitStack() as closing:
        group = None
        with contextlib.suppress(NoMemoryGroups):
            group = closing.enter_context(MemoryGroup.create(limit_bytes))
        out, err = (closing.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
        started, others = time.perf_counter(), others_seconds()
        process = subprocess.Popen(
            group.command(command) if group else command, stdout=out, stderr=err, preexec_fn=end_with_parent
        )
        closing.callback(_end, process)
        sampled_bytes = _watch(process, started, sample, sums_memory=group is None or group.peak_bytes() is None)
        seconds, others = time.perf_counter() - started, others_seconds() - others
        out.seek(0)
        err.seek(0)
        oom_kills = group.oom_kills() if group else 0
        if process.returncode or oom_kills:
            killed = f"; the kernel ended {oom_kills} of its processes for want of memory" if oom_kills else ""
            raise BenchBroken(f"{' '.join(arguments)}\nended with {process.returncode}{killed}:\n{err.read()[-2000:]}")
        document = json.loads(out.read())
        peak_bytes = group.peak_bytes() if group else None
    return CommandRun(
        document=document, seconds=seconds, token_ids=tuple(document["token_ids"]),
        others_share=max(0.0, others) / (usable_core_count() * seconds),
        peak_bytes=sampled_bytes if peak_bytes is None else peak_bytes,
        measured_by="sum of PSS, sampled" if peak_bytes is None else "memory group, page cache included",
    )  # fmt: skip


def memory_groups_note() -> str:
    """Return how memory is measured on this machine, as a sentence."""
    try:
        with MemoryGroup.create():
            return "memory is the peak of a control group around the whole command, page cache included"
    except NoMemoryGroups as error:
        return f"no memory groups here ({error}): nothing is limited, and memory is the largest sampled sum of PSS"


def _watch(process: subprocess.Popen[bytes], started: float, sample: Sample | None, *, sums_memory: bool) -> int:
    """Wait for the end; return the largest sum of memory that was seen, 0 if nobody wants it."""
    largest_bytes = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        while True:
            try:
                process.wait(SAMPLE_SECONDS)
                return largest_bytes
            except subprocess.TimeoutExpired:
                pass
            if time.perf_counter() - started > LIMIT_SECONDS:
                raise BenchBroken(f"a command does not end within {LIMIT_SECONDS:.0f} s")
            everyone = [root, *root.children(recursive=True)]
            if sums_memory:
                largest_bytes = max(largest_bytes, sum(map(_memory_bytes, everyone)))
            if sample is not None:
                sample(time.perf_counter() - started, everyone)
    process.wait()
    return largest_bytes


def _memory_bytes(process: psutil.Process) -> int:
    """Return a process's proportional set size; its resident size where the system tells no other; 0 once it ended."""
    try:
        return process_memory(process.pid).counted_bytes
    except psutil.Error:
        return 0


def others_seconds() -> float:
    """Return the time so far that the cores were busy for others than this process and the commands it has run."""
    times = os.times()
    return busy_seconds() - (times.user + times.system + times.children_user + times.children_system)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command if it still runs; its nodes end with it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
