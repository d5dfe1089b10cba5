"""How does a mesh fare while its ports are crowded? Prints figures, and fails where a bar is not kept.

    python -m tests.attacks        # make attacks: a minute, on a machine that does nothing else

Covers: all attacks at once, and an answer's speed beside one without them. Does not cover: what is
left afterwards (test_crowds.py).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.attacks.besieged import BesiegedMesh

WATCH_SECONDS, TURNS = 6.0, 3
LEAST_SPEED, MOST_COMMAND_SECONDS, MOST_SILENT_SECONDS = 0.9, 2.0, 3.5


def main() -> int:
    """Print how it was, in turns, and return whether a bar was missed."""
    calm, besieged = [], []
    with tempfile.TemporaryDirectory(prefix="siege-") as directory, BesiegedMesh(Path(directory)) as mesh:
        mesh.watch(2.0)
        for _ in range(TURNS):
            calm.append(mesh.watch(WATCH_SECONDS))
            with mesh.siege():
                besieged.append(mesh.watch(WATCH_SECONDS))
        print(f"coordinator and node hold {mesh.held()}")
    ratios = sorted(
        there.tokens_per_second / here.tokens_per_second for here, there in zip(calm, besieged, strict=True)
    )
    command = max(seen.longest_command_seconds for seen in besieged)
    silence = max(seen.longest_silence_seconds for seen in besieged)
    print(f"speed of an answer, beside calm: {', '.join(f'{ratio:.2f}' for ratio in ratios)} (bar {LEAST_SPEED})")
    print(f"longest command of the owner's: {command:.2f} s (bar {MOST_COMMAND_SECONDS})")
    print(f"longest silence of the node: {silence:.2f} s (bar {MOST_SILENT_SECONDS})")
    is_kept = (
        ratios[len(ratios) // 2] >= LEAST_SPEED and command < MOST_COMMAND_SECONDS and silence < MOST_SILENT_SECONDS
    )
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
