"""Which runs of our command line stream a model that is larger than their memory, and how much may each take?

Covers: one table of contenders, their options and limits.
Does not cover: running them (command_runs.py), turns (big.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MESH_GROUP_BYTES = 450_000_000
GROUP_MARGIN_BYTES = 20_000_000
"""What a group may hold above the --memory-budget of the command in it."""
STREAMING_BYTES = 450_000_000
"""What a mesh of 4 that keeps no weights takes in all: libraries, windows, buffers. Budgets are counted from here."""
BUDGET_FRACTIONS = (0.25, 0.5, 0.75, 1.0)
"""Of the slices: how much of them the budgets of the series have room for."""
TOKENS = 20
SERIES_TOKENS = 10
"""The series has many runs, and tells the time of a token well enough with fewer of them."""

MESH = "mesh of 4 in 450 MB"
RESIDENT = "mesh of 4, all in memory"
SINGLE = "1 node, 64 MiB window"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to run `coordinator-cli generate`."""

    name: str
    options: tuple[str, ...]
    limit_bytes: int | None = None
    tokens: int = TOKENS
    fraction: float | None = None
    """Of the slices, for one of the budget series."""

    def arguments(self, model: Path, prompt: str, tokens: int | None = None) -> list[str]:
        """Return the whole command line after the program's name."""
        return ["generate", "--json", "--temperature", "0", "--ignore-eos", "--length", str(tokens or self.tokens),
                "--model", str(model), "--prompt", prompt, *self.options]  # fmt: skip


def our_contenders(slice_bytes: int) -> list[Contender]:
    """Return all of them in the order of their turns."""
    mesh = ("--world-size", "4", "--save-dir", "split")
    single = ("--world-size", "1", "--save-dir", "split1")
    series = [
        _in_budget(
            f"mesh of 4, budget for {fraction:.0%}", mesh, STREAMING_BYTES + round(fraction * slice_bytes), fraction
        )
        for fraction in BUDGET_FRACTIONS
    ]
    return [
        Contender(name=MESH, options=(*mesh, "--memory-budget", "435MB"), limit_bytes=MESH_GROUP_BYTES),
        Contender(name=SINGLE, options=(*single, "--window-bytes", "64MiB"), limit_bytes=MESH_GROUP_BYTES),
        *series,
        # Loaded past the page cache: what it keeps would count as memory twice.
        Contender(name=RESIDENT, options=(*mesh, "--memory-window", "0", "--page-cache", "bypass")),
    ]


def _in_budget(name: str, options: tuple[str, ...], budget_bytes: int, fraction: float) -> Contender:
    return Contender(
        name=name, options=(*options, "--memory-budget", str(budget_bytes)), tokens=SERIES_TOKENS, fraction=fraction,
        limit_bytes=budget_bytes + GROUP_MARGIN_BYTES,
    )  # fmt: skip
