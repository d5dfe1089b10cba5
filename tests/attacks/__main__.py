"""How does a mesh fare while its ports are crowded? Prints figures, and fails where a bar is not kept.

    python -m tests.attacks        # make attacks: three minutes, on a machine that does nothing else

Attackers on the mesh's own machine take processor time whatever they attack, so an answer's speed is held against its
speed while the same ones are at ports of nobody's (decoy.py), which send them away as quickly. Its speed beside a calm
mesh's is printed too. Turns of the three kinds alternate, and medians count.
Covers: all attacks at once. Does not cover: what is left afterwards (test_crowds.py).
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from statistics import median

from tests.attacks.besieged import BesiegedMesh, Seen

WATCH_SECONDS, TURNS = 8.0, 5
LEAST_SPEED, MOST_COMMAND_SECONDS, MOST_SILENT_SECONDS = 0.9, 2.0, 3.5


def main() -> int:
    """Print how it was, in turns, and return whether a bar was missed."""
    seen: dict[str, list[Seen]] = {"calm": [], "elsewhere": [], "besieged": []}
    with tempfile.TemporaryDirectory(prefix="siege-") as directory, BesiegedMesh(Path(directory)) as mesh:
        mesh.watch(2.0)
        for _ in range(TURNS):
            for name, siege in (
                ("calm", nullcontext), ("elsewhere", mesh.siege_elsewhere), ("besieged", mesh.siege)
            ):  # fmt: skip
                with siege():
                    seen[name].append(mesh.watch(WATCH_SECONDS))
        print(f"coordinator and node hold {mesh.held()}")
    speed = {name: median(one.tokens_per_second for one in turns) for name, turns in seen.items()}
    for name, turns in seen.items():
        all_turns = ", ".join(f"{one.tokens_per_second:.0f}" for one in turns)
        print(f"tokens a second of an answer, {name}: {speed[name]:.0f} ({all_turns})")
    command = max(one.longest_command_seconds for one in seen["besieged"])
    silence = max(one.longest_silence_seconds for one in seen["besieged"])
    ratio = speed["besieged"] / speed["elsewhere"]
    print(f"speed beside that with the same attackers elsewhere: {ratio:.2f} (bar {LEAST_SPEED})")
    print(f"speed beside calm: {speed['besieged'] / speed['calm']:.2f}")
    print(f"longest command of the owner's: {command:.2f} s (bar {MOST_COMMAND_SECONDS})")
    print(f"longest silence of the node: {silence:.2f} s (bar {MOST_SILENT_SECONDS})")
    return int(ratio < LEAST_SPEED or command >= MOST_COMMAND_SECONDS or silence >= MOST_SILENT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
