"""How does a benchmark tell what it measured: tables, bars that hold or not, notes, and numbers for a machine.

Covers: medians with their range, one rendering for terminal and markdown, the facts of this machine.
Does not cover: measuring, which files are written (__main__.py).
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from common.machine.operating_system import usable_core_count

QUIET_SHARE = 0.1
"""Of the cores' time: what other programs may take in a turn that a bar is judged by."""
DISTURBED = "other programs kept the cores busy, repeat this on a quiet machine"


class BenchBroken(Exception):
    """Something did not work at all: an error in a contender, or a wrong token."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured."""

    rounds: int
    """How often each contender has its turn."""
    length: int
    """Tokens that each turn generates."""
    is_quick: bool
    """Leave out what only adds detail."""
    big_size: str = "3b"
    """Which model that is larger than memory: a key of big_inputs.SIZES."""
    older: Path | None = None
    """Another checkout, with an environment of its own, that `links` compares with."""
    llama_bench: Path | None = None
    """llama.cpp's program of this name, for `quantized` to compare with."""
    case: str = ""
    """Which mesh of links.CASES; empty: all."""
    lane: str = ""
    """How rounds go, where a benchmark starts a coordinator: its --rounds; empty: as it decides itself."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A measurement of each round: its median and its range."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median=statistics.median(values), least=min(values), most=max(values))

    def cells(self, digits: int) -> tuple[str, str, str]:
        """Return median, least and most as table cells."""
        return (f"{self.median:.{digits}f}", f"{self.least:.{digits}f}", f"{self.most:.{digits}f}")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a header; the first column is text, the others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def lines(self) -> list[str]:
        """Return the table in markdown, aligned so that a terminal shows it well too."""
        widths = [max(len(row[i]) for row in [self.header, *self.rows]) for i in range(len(self.header))]

        def line(row: tuple[str, ...]) -> str:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            return f"| {' | '.join(cells)} |"

        rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
        return [f"**{self.title}**", "", line(self.header), f"| {' | '.join(rule)} |", *map(line, self.rows), ""]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What the project asks of a number, and the number."""

    name: str
    measured: float
    needed: float
    at_least: bool = True
    """Whether `needed` is the least that is allowed, or the most."""
    unit: str = ""
    undecided: str = ""
    """Why this measurement proves nothing either way; empty when it does."""

    @property
    def holds(self) -> bool:
        return self.measured >= self.needed if self.at_least else self.measured <= self.needed

    def line(self) -> str:
        verdict = "NOT DECIDED" if self.undecided else "holds" if self.holds else "DOES NOT HOLD"
        relation = "at least" if self.at_least else "at most"
        numbers = f"{self.measured:.2f}{self.unit} ({relation} {self.needed:g}{self.unit} needed)"
        return f"- {verdict}: {self.name} is {numbers}{'; ' if self.undecided else ''}{self.undecided}"


class Picture(Protocol):
    """Something that can be drawn."""

    def save(self, path: Path) -> None:
        """Draw into a file whose kind its name tells."""


@dataclass(kw_only=True)
class Result:
    """What one benchmark has to say."""

    name: str
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    """Everything measured, for the JSON file."""
    picture: Picture | None = None

    def lines(self) -> list[str]:
        """Return all of it as markdown."""
        lines = [f"## {self.name}", ""]
        for table in self.tables:
            lines += table.lines()
        lines += [bar.line() for bar in self.bars]
        lines += [f"- {note}" for note in self.notes]
        return [*lines, ""]


def machine_facts() -> dict[str, Any]:
    """Return what a reader has to know about this machine to compare numbers."""
    import torch  # a second; tests read what this file says of a benchmark

    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": _processor_name(),
        "usable_cores": usable_core_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_average_before": [round(load, 1) for load in os.getloadavg()],
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()
