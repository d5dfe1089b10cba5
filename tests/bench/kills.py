"""Do the four promises hold after twenty kills at random instants while a mesh ships, and twenty while it answers?

Covers: every process of a mesh of two nodes over links of 100 Mbit/s. Does not cover: what is a promise
(tests/support/kill_points.py).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.report import Bar, BenchBroken, Result, Settings, Table
from tests.support.kill_points import KillPoints, write_small_model
from tests.support.mesh_of_hosts import MeshOfHosts
from tests.support.network_hosts import why_not

KILLS, SEED = 20, 2
PROMISED_SECONDS = 5.0


def measure(settings: Settings) -> Result:
    """Kill, look, go on. Raises: BenchBroken: a promise is broken, or there can be no such mesh here."""
    if reason := why_not():
        raise BenchBroken(f"kills: {reason}")
    with tempfile.TemporaryDirectory() as directory, MeshOfHosts(["attic", "kitchen"]) as mesh:
        points = KillPoints(mesh, write_small_model(Path(directory)), seed=SEED)
        try:
            outcomes = [points.run(shipping=number % 2 == 0) for number in range(2 * KILLS)]
        except AssertionError as error:
            raise BenchBroken(f"a promise is broken: {error}") from error
    rows = [(one.phase, one.victim, one.moment, f"{one.seconds:.2f}", one.said.replace("|", "/")) for one in outcomes]
    told = max(one.seconds for one in outcomes if one.phase == "answering")
    return Result(
        name="Kills at random instants",
        tables=[Table(
            title="What was killed when, and what whoever waited was told", rows=rows,
            header=("phase", "killed", "at", "seconds to the end", "told"),
        )],
        bars=[
            Bar(name="kills after which all four promises hold", measured=len(outcomes), needed=2 * KILLS),
            Bar(name="longest wait for an explicit end", measured=told, needed=PROMISED_SECONDS, at_least=False,
                unit=" s"),
        ],
        numbers={"outcomes": [list(row) for row in rows]},
    )  # fmt: skip
