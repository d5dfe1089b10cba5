"""After a node was killed at any moment while a slice in packs arrived, does its next start take the rest, and no more?

Covers: SIGKILL at any touch of the file system, from the first byte until slices are removed and tiles have moved.
Does not cover: how the kills are made (tests/support/interrupted_arrivals.py), kills of whole programs
(tests/support/kill_points.py).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.packed_models import finely_cut_checkpoint
from tests.support.thorough import THOROUGH

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KILL_COUNT = 100 if THOROUGH else 20


def test_the_start_after_a_kill_takes_the_rest(tmp_path: Path) -> None:
    """A pack is whole or not there, a slice likewise; what was whole before stays whole until it is removed."""
    finely_cut_checkpoint(tmp_path / "model", layers=1).close()
    command = [sys.executable, "-m", "tests.support.interrupted_arrivals", str(tmp_path / "model"), str(tmp_path)]
    done = subprocess.run(
        [*command, str(KILL_COUNT), "7"], cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["touches"] > 50
    assert len(outcome["outcomes"]) == KILL_COUNT
    for one in outcome["outcomes"]:
        assert one["signal"] == signal.SIGKILL
        assert one["right"], f"killed before touch {one['moment']} of {outcome['touches']}"
