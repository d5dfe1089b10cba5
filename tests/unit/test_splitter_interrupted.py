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
from pathlib import Path
from typing import Any

import pytest

from tests.support.interrupted_splits import FRESH, OTHER, PACKED, PLAIN, SAME
from tests.support.thorough import THOROUGH
from tests.support.tiny_checkpoint import write_tiny_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KILL_COUNT = 40 if THOROUGH else 12
SCENARIOS = tuple((slice_format, scenario) for slice_format in (PLAIN, PACKED) for scenario in (FRESH, SAME, OTHER))
Scenario = tuple[str, str]
LIMIT_SECONDS = 100.0


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Scenario, dict[str, Any]]:
    """Return what came of every scenario, by one program for each format: what takes longest is to import."""
    model = write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "model", layers=1)
    programs: list[subprocess.Popen[str]] = []
    for slice_format in (PLAIN, PACKED):
        command = [sys.executable, "-m", "tests.support.interrupted_splits", str(model),
                   str(tmp_path_factory.mktemp(slice_format)), str(KILL_COUNT), "7",
                   *("-".join(scenario) for scenario in SCENARIOS if scenario[0] == slice_format)]  # fmt: skip
        programs.append(
            subprocess.Popen(command, cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    try:
        ended = [(*program.communicate(timeout=LIMIT_SECONDS), program.returncode) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    assert [code for _, _, code in ended] == [0, 0], [err for _, err, _ in ended]
    lines = [line for out, _, _ in ended for line in out.splitlines()]
    return dict(zip(SCENARIOS, map(json.loads, lines), strict=True))


@pytest.mark.parametrize("scenario", SCENARIOS, ids="-".join)
def test_the_run_after_a_kill_has_the_right_slices(
    outcomes: dict[Scenario, dict[str, Any]], scenario: Scenario
) -> None:  # fmt: skip
    """Every byte is that of an undisturbed run; slices of another plan are either whole, or made anew.

    In packs they are whole in any case, and nothing is left that is no pack.
    """
    outcome = outcomes[scenario]
    assert outcome["touches"] > 50
    assert len(outcome["outcomes"]) == KILL_COUNT
    for one in outcome["outcomes"]:
        assert one["signal"] == signal.SIGKILL
        assert one["right"], f"killed before touch {one['moment']} of {outcome['touches']}: {one}"
    if scenario == (PLAIN, OTHER):
        assert {one["kept"] for one in outcome["outcomes"]} == {True, False}, "kills on both sides of the publication"
