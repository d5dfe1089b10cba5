"""What does an answer cost before it begins: from a command to its first byte, by the clock and of the processors?

Covers: `generate` of one token on one node and on four, slices there and in the page cache; the part of it that goes
into checksums, by process. Does not cover: slicing (slicing.py), long prompts (first_token.py).

Processor time is that of the whole command and all its processes, to their end: what ends an answer of one token is
little, and counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common.machine.operating_system import end_with_parent, usable_core_count
from tests.bench.command_runs import others_seconds, run_command
from tests.bench.inputs import KEPT_DIRECTORY, MODEL_DIRECTORY, PROMPT
from tests.bench.report import DISTURBED, QUIET_SHARE, Bar, BenchBroken, Result, Settings, Spread, Table

MOST_PROCESSOR_SECONDS = {1: 1.5, 4: 2.0}
"""By number of nodes, where the processor has instructions for SHA."""
MOST_WALL_SECONDS = 1.2
START = str(Path(sys.executable).parent / "coordinator-cli")
"""As people start it: what it imports, and when, is a part of what is measured."""
TURNS = 3
"""For each round of other benchmarks, but for --quick: one takes a second or two."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """One command, of which only the first byte was waited for."""

    wall_seconds: float
    processor_seconds: float
    others_share: float

    @property
    def is_quiet(self) -> bool:
        return self.others_share <= QUIET_SHARE


def measure(settings: Settings) -> Result:
    """Start in turns. Raises: BenchBroken: a command failed."""
    starts: dict[int, list[Start]] = {size: [] for size in MOST_PROCESSOR_SECONDS}
    with tempfile.TemporaryDirectory(dir=KEPT_DIRECTORY, prefix="start-") as slices:
        # Cut anew, so that the slices are as this build makes them: those that are kept may be older.
        commands = {size: _command(size, Path(slices) / str(size)) for size in starts}
        checksums = {size: _checksum_seconds(command) for size, command in commands.items()}
        for _ in range(settings.rounds if settings.is_quick else settings.rounds * TURNS):
            for size, command in commands.items():
                starts[size].append(_start(command))
    return _result(starts, checksums)


def _command(world_size: int, slices: Path) -> list[str]:
    return ["generate", "--model", str(MODEL_DIRECTORY), "--world-size", str(world_size), "--save-dir", str(slices),
            "--prompt", PROMPT, "--length", "1", "--temperature", "0"]  # fmt: skip


def _checksum_seconds(command: Sequence[str]) -> dict[str, float]:
    """Cut the model, then return processor time of checksums by process."""
    for _ in range(2):
        memory = run_command([*command, "--json"]).document["memory"]
    return {name: values["checksum_nanoseconds"] / 1e9 for name, values in memory.items()}


def _start(command: Sequence[str]) -> Start:
    before, others, started = os.times(), others_seconds(), time.perf_counter()
    with subprocess.Popen(
        [START, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=end_with_parent
    ) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        wall_seconds = time.perf_counter() - started
        process.communicate()
    if process.returncode or not first:
        raise BenchBroken(f"{' '.join(command)} ended with {process.returncode}")
    after, seconds = os.times(), time.perf_counter() - started
    return Start(
        wall_seconds=wall_seconds,
        processor_seconds=after.children_user + after.children_system - before.children_user - before.children_system,
        others_share=max(0.0, others_seconds() - others) / (usable_core_count() * seconds),
    )


def _result(starts: dict[int, list[Start]], checksums: dict[int, dict[str, float]]) -> Result:
    result = Result(name="Start: SmolLM2-135M, float32, from a command to its first byte")
    rows = []
    for size, own in starts.items():
        processor = Spread.of([start.processor_seconds for start in own])
        wall = Spread.of([start.wall_seconds for start in own])
        shares = sum(checksums[size].values()), checksums[size]["coordinator"]
        rows.append((
            str(size), *processor.cells(2), *wall.cells(2), f"{shares[0]:.3f}", f"{shares[1]:.3f}",
            f"{shares[0] - shares[1]:.3f}",
        ))  # fmt: skip
        result.bars += [
            _bar(f"processor time, {size} node(s)", own, processor=True, most=MOST_PROCESSOR_SECONDS[size]),
            _bar(f"wall time, {size} node(s)", own, processor=False, most=MOST_WALL_SECONDS),
        ]
    result.tables = [Table(
        title="Seconds; processor: of all processes; checksums: processor time of comparing them, which it includes",
        header=("nodes", "processor", "least", "most", "wall", "least", "most", "checksums", "coordinator's", "nodes'"),
        rows=rows,
    )]  # fmt: skip
    result.numbers = {
        str(size): {"starts": [asdict(start) for start in own], "checksum_seconds": checksums[size]}
        for size, own in starts.items()
    }
    return result


def _bar(name: str, starts: Sequence[Start], *, processor: bool, most: float) -> Bar:
    """Judge the starts that nobody disturbed."""
    quiet = [start for start in starts if start.is_quiet]
    seconds = [start.processor_seconds if processor else start.wall_seconds for start in quiet or starts]
    return Bar(
        name=f"{name}, in {len(quiet)} of {len(starts)} starts that were quiet,", measured=Spread.of(seconds).median,
        needed=most, at_least=False, unit=" s", undecided="" if quiet else DISTURBED,
    )  # fmt: skip
