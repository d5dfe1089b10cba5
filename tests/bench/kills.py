"""Do the four promises hold after twenty kills of every process at random instants, while a mesh ships and answers?

Covers: every process of a mesh of two nodes over links of 100 Mbit/s, in random order; the first promise that is broken
ends it. `--quick`: two of each. Does not cover: what is a promise (tests/support/kill_points.py).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common.errors import ShardmeshError
from tests.bench.report import Bar, BenchBroken, Result, Settings, Table
from tests.support.kill_points import PHASES, KillPoints, Outcome, write_small_model
from tests.support.mesh_of_hosts import MeshOfHosts
from tests.support.network_hosts import why_not

KILLS, QUICK_KILLS, SEED = 20, 2, 2
"""Of each process in each phase."""
PROMISED_SECONDS = 5.0


def measure(settings: Settings) -> Result:
    """Kill, look, go on. Raises: BenchBroken: a promise is broken, or there can be no such mesh here."""
    if reason := why_not():
        raise BenchBroken(f"kills: {reason}")
    times = QUICK_KILLS if settings.is_quick else KILLS
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory, MeshOfHosts(["attic", "kitchen"]) as mesh:
        try:
            points = KillPoints(mesh, write_small_model(Path(directory)), seed=SEED)
        except (AssertionError, ShardmeshError) as error:
            raise BenchBroken(f"kills: the mesh does not work before anything is killed: {error}") from error
        outcomes = _kill_all(points, times)
    return _result(outcomes, times, time.monotonic() - started)


def _kill_all(points: KillPoints, times: int) -> list[Outcome]:
    dealt = points.deal(times)
    outcomes: list[Outcome] = []
    for number, (phase, victim) in enumerate(dealt, start=1):
        try:
            outcomes.append(points.run(phase, victim))
        except AssertionError as error:
            raise BenchBroken(f"a promise is broken at kill {number} of {len(dealt)}: {error}") from error
        one = outcomes[-1]
        print(
            f"kill {number} of {len(dealt)}: {victim}, {phase}, {one.moment}: {one.wait_seconds:.2f} s to the end; "
            f"all promises hold ({one.seconds:.1f} s)",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return outcomes


def _result(outcomes: Sequence[Outcome], times: int, seconds: float) -> Result:
    groups = {
        (phase, victim): [one for one in outcomes if (one.phase, one.victim) == (phase, victim)]
        for phase in PHASES
        for victim in sorted({one.victim for one in outcomes})
    }
    waits = [one.wait_seconds for one in outcomes if one.code > 0]
    return Result(
        name="Kills at random instants",
        tables=[Table(
            title="What was killed, and how long whoever waited had to wait", rows=[
                (f"{victim}, while {phase}", *_cells(group)) for (phase, victim), group in groups.items()
            ],
            header=("killed", "kills", "all four promises held", "ended with an error", "longest wait to be told, s",
                    "went on to its end", "longest wait for that, s"),
        )],
        bars=[
            Bar(name="kills after which all four promises hold", measured=len(outcomes), needed=times * len(groups)),
            Bar(name="kills of each process in each phase", measured=min(map(len, groups.values())), needed=KILLS,
                undecided="" if times == KILLS else "this was a quick run"),
            Bar(name="longest wait for an explicit end", measured=max(waits, default=0.0), needed=PROMISED_SECONDS,
                at_least=False, unit=" s"),
        ],
        notes=[f"all of it took {seconds:.0f} s; a command that was killed itself ended with neither"],
        numbers={"outcomes": [
            {"phase": one.phase, "killed": one.victim, "at": one.moment, "wait_seconds": one.wait_seconds,
             "exit_code": one.code, "said": one.said, "seconds": one.seconds}
            for one in outcomes
        ]},
    )  # fmt: skip


def _cells(group: Sequence[Outcome]) -> tuple[str, ...]:
    """Return a row's numbers; whoever stands in it broke no promise, or the run would have ended."""
    told = [one.wait_seconds for one in group if one.code > 0]
    done = [one.wait_seconds for one in group if one.code == 0]
    return (
        str(len(group)), str(len(group)), str(len(told)), f"{max(told):.2f}" if told else "-",
        str(len(done)), f"{max(done):.2f}" if done else "-",
    )  # fmt: skip
