"""After slicing was killed at any moment, is the next run right, without a person's hand?

Covers: SIGKILL at any touch of the file system, over nothing, over the same slices, over another plan's; of slices of
one dtype, and of slices in packs.
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

from tests.support.interrupted_splits import FRESH, OTHER, PACKED, PLAIN, SAME
from tests.support.thorough import THOROUGH
from tests.support.tiny_checkpoint import write_tiny_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KILL_COUNT = 40 if THOROUGH else 12
SCENARIOS = tuple((slice_format, scenario) for slice_format in (PLAIN, PACKED) for scenario in (FRESH, SAME, OTHER))
Scenario = tuple[str, str]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Scenario, subprocess.Popen[str]]]:
    """Start every scenario at once: each needs one core, and two seconds of imports before it begins."""
    started: dict[Scenario, subprocess.Popen[str]] = {}
    for scenario in SCENARIOS:
        directory = tmp_path_factory.mktemp("-".join(scenario))
        model = write_tiny_checkpoint(directory / "model", layers=1)
        command = [sys.executable, "-m", "tests.support.interrupted_splits", str(model), str(directory), *scenario]
        started[scenario] = subprocess.Popen(
            [*command, str(KILL_COUNT), "7"],
            cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    yield started
    for program in started.values():
        program.kill()
        program.communicate()


@pytest.mark.parametrize("scenario", SCENARIOS, ids="-".join)
def test_the_run_after_a_kill_has_the_right_slices(
    programs: dict[Scenario, subprocess.Popen[str]], scenario: Scenario
) -> None:  # fmt: skip
    """Every byte is that of an undisturbed run; slices of another plan are either whole, or made anew.

    In packs they are whole in any case, and nothing is left that is no pack.
    """
    out, err = programs[scenario].communicate(timeout=100)
    assert programs[scenario].returncode == 0, err
    outcome = json.loads(out)
    assert outcome["touches"] > 50
    assert len(outcome["outcomes"]) == KILL_COUNT
    for one in outcome["outcomes"]:
        assert one["signal"] == signal.SIGKILL
        assert one["right"], f"killed before touch {one['moment']} of {outcome['touches']}: {one}"
    if scenario == (PLAIN, OTHER):
        assert {one["kept"] for one in outcome["outcomes"]} == {True, False}, "kills on both sides of the publication"
