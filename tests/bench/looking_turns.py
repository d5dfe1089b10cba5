"""The coordinator of a `generate` that looks closely at every second sweep, and tells what that took.

    python -m tests.bench.looking_turns OUT generate --model ... --world-size 4

Writes into OUT, as JSON, the seconds of sweeps of one row, from the beginning of one to that of the next: those that
were looked at (rounds with `tells_waits`, the critical path, facts for advice), and the others. Sweep by sweep, so that
what neighbours take of a shared machine falls on both alike. Does not cover: what to make of it (see.py).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from coordinator.ranks.path_watch import PathWatch
from coordinator.ranks.ranks import Ranks

FIRST_SWEEPS = 8
"""Left out: memory is touched, and links are measured."""


def main() -> None:
    """Run coordinator-cli with the arguments after the first one."""
    turns = _Turns(Path(sys.argv.pop(1)))
    close = Ranks.close

    def close_and_tell(ranks: Ranks) -> None:
        close(ranks)
        turns.tell()

    Ranks.close = close_and_tell  # type: ignore[assignment, method-assign]  # the program ends without a way back to here
    from coordinator.cli.main import main as program

    program()


class _Turns:
    """Takes the place of what a watch decides, for all watches of this process."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.looked: list[float] = []
        self.others: list[float] = []
        self._count = 0
        self._before: tuple[float, bool] | None = None
        begin = PathWatch.begin

        def begin_in_turn(watch: PathWatch, row_count: int) -> None:
            self._note(time.perf_counter())
            begin(watch, row_count)
            self._count += 1
            if row_count == 1 and self._count > FIRST_SWEEPS:
                watch.is_looking = self._count % 2 == 0
                self._before = time.perf_counter(), watch.is_looking

        PathWatch.begin = begin_in_turn  # type: ignore[assignment, method-assign]  # what this program is for

    def tell(self) -> None:
        """Write what there is so far."""
        self._out.write_text(json.dumps({"looked": self.looked, "others": self.others}), encoding="utf-8")

    def _note(self, now: float) -> None:
        if self._before is not None:
            began, was_looked_at = self._before
            (self.looked if was_looked_at else self.others).append(now - began)
        self._before = None


if __name__ == "__main__":
    main()
