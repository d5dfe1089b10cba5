"""After slicing was killed at any moment, is the next run right, without a person's hand?

Covers: SIGKILL at any touch of the file system, over nothing, over the same slices, over another plan's.
Does not cover: how the kills are made (tests/support/interrupted_splits.py).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.interrupted_splits import FRESH, OTHER, SAME
from tests.support.tiny_checkpoint import write_tiny_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KILL_COUNT = 16
SCENARIOS = (FRESH, SAME, OTHER)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start every scenario at once: each needs one core, and two seconds of imports before it begins."""
    started = {}
    for scenario in SCENARIOS:
        directory = tmp_path_factory.mktemp(scenario)
        model = write_tiny_checkpoint(directory / "model", layers=1)
        command = [sys.executable, "-m", "tests.support.interrupted_splits", str(model), str(directory), scenario]
        started[scenario] = subprocess.Popen(
            [*command, str(KILL_COUNT), "7"],
            cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    yield started
    for program in started.values():
        program.kill()
        program.communicate()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_run_after_a_kill_has_the_right_slices(
    programs: dict[str, subprocess.Popen[str]], scenario: str
) -> None:  # fmt: skip
    """Every byte is that of an undisturbed run; slices of another plan are either whole, or made anew."""
    out, err = programs[scenario].communicate(timeout=100)
    assert programs[scenario].returncode == 0, err
    outcome = json.loads(out)
    assert outcome["touches"] > 50
    assert len(outcome["outcomes"]) == KILL_COUNT
    for one in outcome["outcomes"]:
        assert one["signal"] == signal.SIGKILL
        assert one["right"], f"killed before touch {one['moment']} of {outcome['touches']}: {one}"
    if scenario == OTHER:
        assert {one["kept"] for one in outcome["outcomes"]} == {True, False}, "kills on both sides of the publication"
