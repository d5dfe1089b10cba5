"""How much processor time of a process is observing? What the kernel counts of a thread, split by what py-spy sees.

    profile = Profile(process_id, seconds=60, into=directory)
    profile.finish().seconds                # {file: seconds of processor time, ...}

Covers: what a thread has taken, as the kernel counts it, times the share of the looks at it whose stack enters our
rooms' series, paths, spans and logs, or the libraries behind them; each look counts for the outermost of these files.
Looks are at threads that run, in the interpreter or in a system call, or wait for a core; neither that nor looks that
fail change a share. What threads took that came and went is split by the looks at all of them; gRPC's, which come for
echoes and for questions to nodes, count as echoes'. py-spy does not stop what it looks at, so it costs the process
nothing.
Does not cover: additions to plain numbers inside of other functions (a tally is one); native threads, of kernels and of
gRPC: what gRPC's do for echoes is not told apart from answers (`grpc_native` has them all).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.report import BenchBroken

RATE = 200
"""Looks a second."""
FILES = (
    r"coordinator/ranks/(path_\w+|critical_path|round_metrics|\w*series|slow_nodes|link_watch|trace_watch)\.py",
    r"coordinator/program/(spans|tracing|overview|observe_service|explain_service|node_watch|node_looks|targets)\.py",
    r"coordinator/answering/(explaining|advice|request_log|\w*series)\.py",
    r"(coordinator|shardnode|common)/\w+/\w*series\.py",
    r"common/program/(tallies|logs|page_server|metrics_page)\.py",
    r"(common/machine/core_wait|shardnode/sessions/answer_waits|shardnode/listeners/link_service)\.py",
    r"(opentelemetry|prometheus_client)/.*\.py",
)
WENT = 0
"""In place of a thread's number: those that came and went."""
ECHOES = re.compile(r"^(_consume_request_iterator|_run_channel_spin_thread)\.")
GRPC_THREADS = ("event_engine", "grpc_global_tim", "lifeguard")
"""What gRPC calls its own, in the kernel's words."""
_FRAME = re.compile(rf"(?:^|/)({'|'.join(FILES)}):\d+\)$")
_THREAD = re.compile(r"thread \((\d+)\)")
_ERRORS = re.compile(r"Errors: (\d+)")


@dataclass(frozen=True, kw_only=True)
class Observing:
    """What a process has taken in the time of a profile, in seconds of processor time."""

    whole: float
    seconds: Mapping[str, float]
    """Of it, observing, by file, the most first."""
    grpc_native: float
    """Of it, threads of gRPC's own."""
    looks: int
    """Threads that were seen to run, or to wait for a core."""
    failed: int
    """Times at which nothing was seen, of RATE a second."""
    seen: float
    """What these looks come to, and what the kernel has counted of these threads: running and waiting for a core."""
    counted: float

    @property
    def percent(self) -> float:
        """What observing takes of it all."""
        return 100 * sum(self.seconds.values()) / self.whole


class Profile:
    """One that is being taken. Raises on construction: BenchBroken: there is no py-spy."""

    def __init__(self, process_id: int, *, seconds: int, into: Path) -> None:
        self._out = into / f"{process_id}.folded"
        spy = Path(sys.executable).with_name("py-spy")
        command = [str(spy), "record", "--format", "raw", "--rate", str(RATE), "--duration", str(seconds), "--pid",
                   str(process_id), "--output", str(self._out), "--full-filenames", "--threads", "--nonblocking",
                   ]  # fmt: skip
        self._process = psutil.Process(process_id)
        self._before = Taken.of(self._process)
        try:
            self._spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            raise BenchBroken("py-spy is not installed: make setup-dev") from error

    def finish(self) -> Observing:
        """Wait for its end. Raises: BenchBroken: it has failed, or has seen nothing."""
        _, told = self._spy.communicate()
        if self._spy.returncode:
            raise BenchBroken(f"py-spy: {told.strip().splitlines()[-1] if told.strip() else 'failed'}")
        failed = _ERRORS.search(told)
        taken = Taken.of(self._process).since(self._before)
        return observing(self._out.read_text(encoding="utf-8"), taken, int(failed[1]) if failed else 0)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What the kernel has counted, in seconds."""

    whole: float
    """Threads that have ended included."""
    ran: Mapping[int, float]
    """By thread."""
    waited: Mapping[int, float]
    """For a core."""
    names: Mapping[int, str]

    @classmethod
    def of(cls, process: psutil.Process) -> Taken:
        ran, waited, names = {}, {}, {}
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            try:
                counted = (thread / "schedstat").read_text().split()
                names[int(thread.name)] = (thread / "comm").read_text().strip()
            except OSError:  # it has just ended
                continue
            ran[int(thread.name)], waited[int(thread.name)] = int(counted[0]) / 1e9, int(counted[1]) / 1e9
        times = process.cpu_times()
        return cls(whole=float(times.user + times.system), ran=ran, waited=waited, names=names)

    def since(self, before: Taken) -> Taken:
        return Taken(
            whole=self.whole - before.whole,
            ran={thread: seconds - before.ran.get(thread, 0.0) for thread, seconds in self.ran.items()},
            waited={thread: seconds - before.waited.get(thread, 0.0) for thread, seconds in self.waited.items()},
            names=self.names,
        )


def observing(folded: str, taken: Taken, failed: int) -> Observing:
    """Split what was taken. Args: folded: lines of `thread (id): name;frame;frame;... count`. Raises: BenchBroken."""
    looks: Counter[int] = Counter()
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if len(frames) == 1:  # it begins or ends
            continue
        named = _THREAD.match(frames[0])
        thread = int(named[1]) if named and int(named[1]) in taken.ran else WENT
        looks[thread] += int(count)
        file = next(filter(None, map(_observing, frames)), None)
        if file is not None:
            found[thread][file] += int(count)
    stayed = [thread for thread in looks if thread != WENT]
    if not stayed:
        raise BenchBroken("py-spy has seen nothing at work")
    ran = {**taken.ran, WENT: max(0.0, taken.whole - sum(taken.ran.values()))}
    seconds: dict[str, float] = defaultdict(float)
    for thread, files in found.items():
        for file, count_of_it in files.items():
            seconds[file] += ran[thread] * count_of_it / looks[thread]
    return Observing(
        whole=taken.whole, seconds=dict(sorted(seconds.items(), key=lambda one: -one[1])),
        failed=failed, looks=looks.total(),
        grpc_native=sum(taken.ran[thread] for thread, name in taken.names.items() if name in GRPC_THREADS),
        seen=sum(looks[thread] for thread in stayed) / RATE,
        counted=sum(taken.ran[thread] + taken.waited[thread] for thread in stayed),
    )  # fmt: skip


def _observing(frame: str) -> str | None:
    """Return the file that a frame is counted for; None: it is no observer's."""
    if ECHOES.match(frame):
        return "echo.py"
    found = _FRAME.search(frame)
    if found is None:
        return None
    library = re.match("opentelemetry|prometheus_client", found[1])
    return library[0] if library else found[1].rpartition("/")[2]
