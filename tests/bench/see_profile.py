"""Which share of a process's work is observing? From the stacks that py-spy sees in it.

    profile = Profile(process_id, seconds=60, into=directory)
    profile.finish()                      # ({file: share, ...} of the samples, how many samples)

Covers: the moments in which a thread has the interpreter: all samples, and those whose stack enters our rooms' series,
paths, spans and logs, or the libraries behind them; each counts for the outermost of these files. A process does more
than that (kernels, messages, the system), so its whole share is smaller than what this gives. Does not cover: additions
to plain numbers inside of other functions (a tally is one); threads of metrics pages, whose work is mostly TLS and the
system's, outside of the interpreter (see.py measures a scrape by processor time).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.bench.report import BenchBroken

RATE = 200
"""Samples a second."""
FILES = (
    r"coordinator/ranks/(path_\w+|critical_path|round_metrics|\w*series|slow_nodes|link_watch|trace_watch)\.py",
    r"coordinator/program/(spans|tracing|overview|observe_service|explain_service|node_watch|node_looks|targets)\.py",
    r"coordinator/answering/(explaining|advice|request_log|\w*series)\.py",
    r"(coordinator|shardnode|common)/\w+/\w*series\.py",
    r"common/program/(tallies|logs)\.py",
    r"common/machine/core_wait\.py",
    r"(opentelemetry|prometheus_client)/.*\.py",
)
PAGE = "common/program/page_server.py"
FUNCTIONS = ("_tell_waits", "_begin_answer")
"""Of a node's session: what it measures for a round that is looked at."""
_FRAME = re.compile(rf"(?:^|/)({'|'.join(FILES)}):\d+\)$")
_NAMED = re.compile(rf"^(?:{'|'.join(FUNCTIONS)}) \(")


class Profile:
    """One that is being taken. Raises on construction: BenchBroken: there is no py-spy."""

    def __init__(self, process_id: int, *, seconds: int, into: Path) -> None:
        self._out = into / f"{process_id}.folded"
        spy = Path(sys.executable).with_name("py-spy")
        command = [str(spy), "record", "--format", "raw", "--rate", str(RATE), "--duration", str(seconds), "--pid",
                   str(process_id), "--output", str(self._out), "--full-filenames", "--gil"]  # fmt: skip
        try:
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            raise BenchBroken("py-spy is not installed: make setup-dev") from error

    def finish(self) -> tuple[dict[str, float], int]:
        """Wait for its end. Returns: shares of all samples by file, and how many there are. Raises: BenchBroken."""
        _, told = self._process.communicate()
        if self._process.returncode:
            raise BenchBroken(f"py-spy: {told.strip().splitlines()[-1] if told.strip() else 'failed'}")
        return shares(self._out.read_text(encoding="utf-8"))


def shares(folded: str) -> tuple[dict[str, float], int]:
    """Return each observing file's share of samples. Args: folded: lines of `frame;frame;... count`."""
    counts: Counter[str] = Counter()
    total = 0
    for line in folded.splitlines():
        stack, _, text = line.rpartition(" ")
        if PAGE in stack:
            continue
        total += int(text)
        observing = next(filter(None, map(_observing, stack.split(";"))), None)
        if observing is not None:
            counts[observing] += int(text)
    if not total:
        raise BenchBroken("py-spy has seen nothing at work")
    return {name: count / total for name, count in counts.most_common()}, total


def _observing(frame: str) -> str | None:
    """Return the file that a frame is counted for; None: it is no observer's."""
    if _NAMED.match(frame):
        return "session.py"
    found = _FRAME.search(frame)
    if found is None:
        return None
    library = re.match("opentelemetry|prometheus_client", found[1])
    return library[0] if library else found[1].rpartition("/")[2]
