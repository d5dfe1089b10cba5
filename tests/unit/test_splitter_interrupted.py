"""After slicing was killed at any moment, is the next run right, without a person's hand?

Covers: SIGKILL at any touch of the file system, over nothing, over the same slices, over another plan's.
Does not cover: how the kills are made (tests/support/interrupted_splits.py).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.interrupted_splits import FRESH, OTHER, SAME
from tests.support.tiny_checkpoint import write_tiny_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KILL_COUNT = 16


@pytest.mark.parametrize("scenario", [FRESH, SAME, OTHER])
def test_the_run_after_a_kill_has_the_right_slices(tmp_path: Path, scenario: str) -> None:
    """Every byte is that of an undisturbed run; slices of another plan are either whole, or made anew."""
    model = write_tiny_checkpoint(tmp_path / "model", layers=1)
    command = [sys.executable, "-m", "tests.support.interrupted_splits", str(model), str(tmp_path), scenario]
    result = subprocess.run(
        [*command, str(KILL_COUNT), "7"], cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["touches"] > 50
    assert len(outcome["outcomes"]) == KILL_COUNT
    for one in outcome["outcomes"]:
        assert one["signal"] == signal.SIGKILL
        assert one["right"], f"killed before touch {one['moment']} of {outcome['touches']}: {one}"
    if scenario == OTHER:
        assert {one["kept"] for one in outcome["outcomes"]} == {True, False}, "kills on both sides of the publication"
