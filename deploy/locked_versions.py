"""Which versions of others' packages are in this environment? `make lock` writes them into requirements.lock.

Covers: one line a package, with the least Python where that version does not exist for every one that we take.
Does not cover: the ranges (pyproject.toml), who takes the lock (Makefile, Containerfile).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions

OLDEST_MINOR = 10
"""Of Python 3, that we take (pyproject.toml)."""
NOT_LOCKED = re.compile(r"shardmesh|pip|setuptools|triton|(nvidia|cuda)-.*")
"""Ourselves, what makes environments, and what comes with one build of torch only."""
LEAST_PYTHON = re.compile(r">=?\s*3\.(\d+)")


def main() -> None:
    """Print the lines, in the order of names."""
    print("\n".join(lines(distributions())))


def lines(installed: Iterable[Distribution]) -> list[str]:
    """Return the lines of these packages, without what stands behind a version's plus: a build, not a version."""
    wanted = {found.name: found for found in installed if not NOT_LOCKED.fullmatch(found.name.lower())}
    return [
        f"{name}=={found.version.split('+')[0]}{marker(required_python(found))}"
        for name, found in sorted(wanted.items(), key=lambda item: item[0].lower())
    ]


def required_python(found: Distribution) -> str:
    """Return what a package says of Pythons that it runs on; empty where it says nothing."""
    if "Requires-Python" not in found.metadata:
        return ""
    return found.metadata["Requires-Python"]


def marker(requires_python: str) -> str:
    """Return from which Python on such a version exists, where that is not every one that we take."""
    least = max(map(int, LEAST_PYTHON.findall(requires_python)), default=0)
    return f"; python_version >= '3.{least}'" if least > OLDEST_MINOR else ""


if __name__ == "__main__":
    main()
