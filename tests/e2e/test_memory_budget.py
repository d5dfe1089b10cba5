"""Do all processes together stay within `--memory-budget`, and is the least that is named the least that works?

Covers: whole programs with real memory: the sum over all processes, sampled while they run; a budget that is refused,
the least, one that holds some of the weights, what is free, and with SHARDMESH_THOROUGH=1 (.ci/run) one that holds all.
Does not cover: arithmetic (tests/property/test_shares.py, tests/property/test_pinning.py), limits of control
groups and speed (tests/bench).
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.errors import EXIT_INPUT, EXIT_RESOURCE
from common.machine.operating_system import process_memory
from common.program.sizes import parse_size
from tests.e2e.conftest import RunHere
from tests.support.cli import Running, Shell
from tests.support.thorough import THOROUGH
from tests.support.waiting import wait_until

MODEL = Path(__file__).resolve().parents[2] / "models" / "smollm2-135m-instruct"
ASK = ["--prompt", "The sea is", "--length", "8", "--temperature", "0", "--ignore-eos"]
WORLD_SIZE = 2
DTYPE = "bfloat16"
"""270 MB of weights: far more than programs take, and half of what float32 has to write, read and check."""
LOOK_EACH = 10
"""Polls between two samples: counting shared pages takes the processes' time."""
TAKES_SHARES = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory that is shared counts")


@dataclass
class Watched:
    """One run of `generate`, and the most that all its processes took together, each shared page once."""

    running: Running
    peak_bytes: int = 0
    looks: int = 0
    document: dict[str, Any] = field(default_factory=dict)

    def watch(self) -> Watched:
        """Sample until it ends."""
        wait_until(self._has_ended, limit_seconds=60, what="an answer")
        finished = self.running.finish()
        assert finished.code == 0, finished.err
        self.document = json.loads(finished.out)
        return self

    @property
    def weight_bytes(self) -> int:
        """What the nodes hold for good."""
        return sum(part.get("resident_bytes", 0) for part in self.document["memory"].values())

    def _has_ended(self) -> bool:
        self.looks += 1
        if self.looks % LOOK_EACH:
            return self.running.process.poll() is not None
        total = 0
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(self.running.process.pid)
            for process in (own, *own.children(recursive=True)):
                total += process_memory(process.pid).pss_bytes
            self.peak_bytes = max(self.peak_bytes, total)
        return self.running.process.poll() is not None


@pytest.fixture(scope="module")
def save_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the slices go, made by the first run; gone afterwards, 330 MB."""
    directory = tmp_path_factory.mktemp("slices")
    yield directory
    shutil.rmtree(directory)


def start(shell: Shell, save_dir: Path, *options: str) -> Watched:
    """Start an answer of two nodes."""
    return Watched(running=shell.start(
        "coordinator-cli", "generate", "--model", str(MODEL), "--world-size", str(WORLD_SIZE), *ASK, "--json",
        "--save-dir", str(save_dir), "--weights-dtype", DTYPE, *options,
    ))  # fmt: skip


@pytest.fixture(scope="module")
def free(save_dir: Path) -> Iterator[Watched]:
    """Return an answer within all the memory that is free."""
    with closing(Shell()) as shell:
        yield start(shell, save_dir, "--memory-budget", "auto").watch()


@TAKES_SHARES
def test_every_budget_is_kept_by_all_processes_together(shell: Shell, save_dir: Path, free: Watched) -> None:
    """Too small: refused with the least. The least, and more: the same tokens, and the sum below the budget."""
    refused = shell.run(
        "coordinator-cli", "generate", "--model", str(MODEL), "--world-size", str(WORLD_SIZE), *ASK,
        "--save-dir", str(save_dir), "--weights-dtype", DTYPE, "--memory-budget", "100MB",
    )  # fmt: skip
    line = refused.error_line("coordinator-cli", EXIT_RESOURCE)
    least = re.search(r"--memory-budget 100MB is too small.* needs at least (\w+)", line)
    assert least is not None, line
    least_bytes = parse_size(least.group(1), "")
    resident = []
    for budget_bytes in (least_bytes, least_bytes + 100_000_000, least_bytes + 500_000_000)[: 3 if THOROUGH else 2]:
        run = start(shell, save_dir, "--memory-budget", str(budget_bytes)).watch()
        assert run.document["token_ids"] == free.document["token_ids"]
        assert run.peak_bytes <= budget_bytes, (run.peak_bytes, budget_bytes, run.document["memory"])
        assert run.peak_bytes >= 0.6 * min(budget_bytes, free.peak_bytes), "memory that is allowed lies idle"
        resident.append(run.weight_bytes)
    assert resident[0] < 60_000_000 < resident[1] < free.weight_bytes
    assert resident[2:] == [free.weight_bytes] * (len(resident) - 2)


def test_auto_takes_what_is_free(free: Watched) -> None:
    """On a machine with room, everything stays in memory."""
    assert all(part["window_bytes"] == 0 for name, part in free.document["memory"].items() if name != "coordinator")


@pytest.mark.parametrize("program", ["coordinator-cli", "shardnode"])
def test_sizes_that_are_none_are_refused_by_name(here: RunHere, sliced_once: Path, program: Any) -> None:
    """One line that names the option, before anything is started."""
    command = ["generate", "--model", str(sliced_once), "--prompt", "x"]
    if program == "shardnode":
        command = ["--slice-dir", str(sliced_once / "split" / "node0")]
    for option, value in (
        ("--memory-budget", "lots"), ("--window-bytes", "-1"), ("--read-bytes", "1000"), ("--page-cache", "maybe"),
        ("--reads-in-flight", "1000"),
    ):  # fmt: skip
        line = here(program, *command, f"{option}={value}").error_line(program, EXIT_INPUT)
        assert option in line


def test_a_node_refuses_a_budget_that_cannot_be_with_the_least(here: RunHere, sliced_once: Path) -> None:
    """`shardnode --memory-budget`: the program alone takes more than that."""
    command = ["--slice-dir", str(sliced_once / "split" / "node0"), "--memory-budget", "50MB"]
    line = here("shardnode", *command).error_line("shardnode", EXIT_RESOURCE)
    assert re.search(r"--memory-budget 50MB is too small for .*node0: at least \d+MB are needed", line), line


def test_a_window_below_two_tiles_is_refused_with_the_least(here: RunHere, sliced_once: Path) -> None:
    """`--window-bytes`: the line says what would do."""
    command = ["--slice-dir", str(sliced_once / "split" / "node0"), "--window-bytes", "4096"]
    line = here("shardnode", *command).error_line("shardnode", EXIT_RESOURCE)
    assert re.search(r"allow at least \d+ bytes \(--window-bytes \d+\)", line), line
