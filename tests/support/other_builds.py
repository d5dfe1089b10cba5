"""What does another build of the library make of recorded calls?

Covers: building library and replay.c with a toolchain, anew or once for as long as nothing that goes into them changes;
running them, reading what came out.
Does not cover: which calls (kernel_calls.py), judging the results.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from common.native.build import SOURCE_DIRECTORY
from tests.support.recorded_calls import Calls, Results
from tests.support.toolchains import EMULATED, RUN_LIMIT_SECONDS, Toolchain

REPLAY = Path(__file__).with_name("replay.c")
KEPT = Path(__file__).resolve().parents[2] / "build" / "tests"
"""Builds of before; `make clean` removes them."""


class OtherBuild:
    """A library of its own, and a program that calls it."""

    def __init__(
        self, toolchain: Toolchain, directory: Path, flags: Sequence[str] = (), prefix: Sequence[str] = ()
    ) -> None:
        """Build both where they are not in `directory`.

        Args: flags: beside those of an install; prefix: what stands before the program's name.
        """
        self._toolchain, self._prefix = toolchain, prefix
        self.library, self._program = directory / "matmul.so", directory / "replay"
        if not self._program.exists():
            toolchain.library(directory, flags)
            own_flags = (*flags, *(EMULATED if toolchain.emulators else ()))
            toolchain.program(REPLAY, library=self.library, flags=own_flags).rename(self._program)

    def run(self, recording: Path, results: Path, variant: str, callers: int) -> subprocess.CompletedProcess[str]:
        """Make the recorded calls with one instruction set."""
        command = self._toolchain.command(self._program, variant, str(callers), str(recording), str(results))
        return subprocess.run(
            [*self._prefix, *command], capture_output=True, text=True, timeout=RUN_LIMIT_SECONDS, check=False
        )

    def replay(self, calls: Calls, recording: Path, variant: str, callers: int = 1) -> list[Results]:
        """Return what comes out for each of several callers at once."""
        results = recording.with_name(f"results-{variant}")
        done = self.run(recording, results, variant, callers)
        assert done.returncode == 0, done.stderr
        return [calls.results(results.with_name(f"{results.name}.{caller}")) for caller in range(callers)]


def kept_build(toolchain: Toolchain, flags: Sequence[str] = ()) -> OtherBuild:
    """Return the build of before if sources, flags and compiler are the same, or a new one; others are removed."""
    version = subprocess.run([*toolchain.compiler, "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(repr((toolchain, tuple(flags), version)).encode())
    for path in (*sorted(SOURCE_DIRECTORY.glob("*.[ch]")), SOURCE_DIRECTORY / "build.py", REPLAY):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    kept = KEPT / f"{toolchain.name}-{digest.hexdigest()[:16]}"
    if not kept.is_dir():
        KEPT.mkdir(parents=True, exist_ok=True)
        for former in KEPT.glob(f"{toolchain.name}-*"):
            shutil.rmtree(former, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as directory:
            made = Path(directory, "made")
            made.mkdir()
            OtherBuild(toolchain, made, flags)
            with suppress(OSError):  # another run has been faster
                made.rename(kept)
    return OtherBuild(toolchain, kept, flags)
