"""What does the time of a token look like over the memory it may take?

Covers: an SVG with our series, the ideal line and the others, the same bytes for the same numbers.
Does not cover: the numbers (big_report.py). Needs matplotlib, a dev dependency; opens no window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Point:
    """One contender."""

    name: str
    gigabytes: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class BudgetPicture:
    """What is to be drawn."""

    title: str
    series: Sequence[Point]
    """Ours, the smallest budget first: the ideal line begins there."""
    resident: Point
    """Ours with everything in memory: the ideal line ends there."""
    others: Sequence[Point]

    def save(self, path: Path) -> None:
        """Draw into a file whose kind its name tells (.svg, .png)."""
        import matplotlib

        matplotlib.use("Agg")
        matplotlib.rcParams["svg.hashsalt"] = "shardmesh"
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
        first, last = self.series[0], self.resident
        axes.plot([first.gigabytes, last.gigabytes], [first.seconds, last.seconds], "--", color="gray", label="ideal")
        axes.plot([p.gigabytes for p in self.series], [p.seconds for p in self.series], "o-", label="mesh of 4")
        for marker, point in zip("sD^vP", [last, *self.others], strict=False):
            axes.plot([point.gigabytes], [point.seconds], marker, label=point.name)
        axes.set(
            xlabel="memory of everything that runs, peak, GB",
            ylabel="seconds a token",
            title=self.title,
            ylim=0,
            xlim=0,
        )
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)
