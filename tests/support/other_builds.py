"""What does another build of the library make of recorded calls?

Covers: building library and replay.c with a toolchain, running them, reading what came out.
Does not cover: which calls (kernel_calls.py), judging the results.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.recorded_calls import Calls, Results
from tests.support.toolchains import EMULATED, RUN_LIMIT_SECONDS, Toolchain

REPLAY = Path(__file__).with_name("replay.c")


class OtherBuild:
    """A library of its own, and a program that calls it."""

    def __init__(
        self, toolchain: Toolchain, directory: Path, flags: Sequence[str] = (), prefix: Sequence[str] = ()
    ) -> None:
        """Build both. Args: flags: beside those of an install; prefix: what stands before the program's name."""
        self.library = toolchain.library(directory, flags)
        own_flags = (*flags, *(EMULATED if toolchain.emulators else ()))
        self._toolchain, self._prefix = toolchain, prefix
        self._program = toolchain.program(REPLAY, library=self.library, flags=own_flags)

    def run(self, recording: Path, results: Path, variant: str, callers: int) -> subprocess.CompletedProcess[str]:
        """Make the recorded calls with one instruction set."""
        command = self._toolchain.command(self._program, variant, str(callers), str(recording), str(results))
        return subprocess.run(
            [*self._prefix, *command], capture_output=True, text=True, timeout=RUN_LIMIT_SECONDS, check=False
        )

    def replay(self, calls: Calls, recording: Path, variant: str, callers: int = 1) -> list[Results]:
        """Return what comes out for each of several callers at once."""
        results = self.library.parent / f"results-{variant}"
        done = self.run(recording, results, variant, callers)
        assert done.returncode == 0, done.stderr
        return [calls.results(results.with_name(f"{results.name}.{caller}")) for caller in range(callers)]
