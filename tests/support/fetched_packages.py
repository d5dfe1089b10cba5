"""Runs a client of npm or PyPI that fetches packages, and says in one line why it could not.

Covers: the client missing, too slow, or refusing. Does not cover: what is fetched, and where it is kept.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


class Unreachable(Exception):
    """A package cannot be had here; says why."""


def fetch(command: Sequence[str], packages: str, *, limit_seconds: float, directory: Path | None = None) -> None:
    """Run a client to its end. Args: packages: what it fetches, for words. Raises: Unreachable."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=limit_seconds, cwd=directory)
    except FileNotFoundError as error:
        raise Unreachable(f"{packages} cannot be fetched: {command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{packages} did not arrive within {limit_seconds:.0f} s") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unreachable(f"{packages} cannot be fetched: {last[:200]}") from error
