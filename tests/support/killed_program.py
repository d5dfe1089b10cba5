"""A program of ours that is killed right before its n-th change of the files below a directory.

    python tests/support/killed_program.py 3 DIRECTORY shardnode join ...

A change is a directory made, a file renamed into place, a file removed: between two of them nothing changes there that
a program started again would look at. With fewer changes than that it runs as always.
Does not cover: power cuts (what was written but not synced is still there after a kill).
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Any

CHANGES = {"os.mkdir", "os.rename", "os.remove"}
STARTS = {"shardnode": "shardnode.start", "coordinator": "coordinator.cli.coordinator_start"}


def main() -> None:
    """Run the program; see the module's docstring."""
    count, directory, program, *arguments = sys.argv[1:]
    left = [int(count)]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        # The place of a rename is where it goes to.
        place = arguments[1] if event == "os.rename" else arguments[0] if event in CHANGES else ""
        path = os.path.abspath(os.fsdecode(place))
        if event not in CHANGES or not (path == directory or path.startswith(directory + os.sep)):
            return
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.path.pop(0)  # modules of tests/support are not the program's
    sys.argv = [program, *arguments]
    sys.addaudithook(watch)
    import_module(STARTS[program]).main()


if __name__ == "__main__":
    main()
