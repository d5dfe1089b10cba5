"""Which build of torch does this machine get? One without CUDA where pip can find one; with --gpu, one for a card.

Covers: the choice, best first, among what pip knows for this Python; installing it; saying what a large one costs.
Does not cover: the range of versions (pyproject.toml), the version that the tests ran with (requirements.lock).
Runs before anything else is installed, so it takes nothing but Python itself.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CPU = "+cpu"
CUDA_COMES = f"""\
setup: pip knows no CPU build of torch for Python {platform.python_version()}, so the plain one comes, CUDA included:
  3.0 GB to download and 6 GB of disk, instead of 0.2 and 0.8. It runs here all the same. To avoid it: Ctrl-C, then
  make setup-dev PIP_TORCH_ARGS='--index-url ADDRESS', with the address that pytorch.org's "Get started" page shows for
  Pip and CPU."""
CUDA_WANTED = "setup: torch comes with CUDA: 3.0 GB to download and 6 GB of disk."
"""The figures: torch 2.15.0 and all that it names, on x86-64, and the CPU build of 2.13.0."""
CANNOT = """\
setup: pip could not install '{requirement}' for Python {python} (see above). Another one: the same command with
  TORCH=torch==VERSION; another place to look: with PIP_TORCH_ARGS='--index-url ADDRESS'"""

Version = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What pip is asked to install."""

    requirement: str
    """As pip writes it: `torch==2.13.0+cpu`, `torch>=2.6,<3`."""
    has_cuda: bool
    """Whether gigabytes come with it that only a card by NVIDIA has a use for."""


def main() -> int:
    """Install the best build there is; return the exit code."""
    reader = argparse.ArgumentParser(description="Install the smallest build of torch that pip finds for this machine.")
    reader.add_argument("--gpu", action="store_true", help="take a build that computes on a card, whatever its size")
    reader.add_argument("--torch", default="", help="a requirement to install as it stands, such as torch==2.13.0")
    # What pip takes begins with dashes, so it comes last, behind a `--` of its own.
    reader.add_argument("pip_arguments", nargs="*", help="for pip, behind --: where to look for the CPU build")
    asked = reader.parse_args()
    allowed = allowed_range((REPOSITORY / "pyproject.toml").read_text())
    plain_has_cuda = platform.system() == "Linux" and platform.machine() == "x86_64"
    if plain_has_cuda and not asked.torch and is_with_cuda(installed_version(), allowed):
        return 0  # what somebody chose for a card stays; nor is there a word of gigabytes that do not come
    if asked.torch:
        choice = Choice(requirement=asked.torch, has_cuda=False)
    else:
        choice = choose(
            known_versions(asked.pip_arguments),
            allowed=allowed,
            tested=tested_version((REPOSITORY / "requirements.lock").read_text()),
            plain_has_cuda=plain_has_cuda,
            for_card=asked.gpu,
        )
    if choice.has_cuda:
        print(CUDA_WANTED if asked.gpu else CUDA_COMES, flush=True)
    # Progress is worth its lines where it goes on for minutes.
    quiet = [] if choice.has_cuda else ["--quiet"]
    finished = pip("install", *quiet, *asked.pip_arguments, choice.requirement)
    if finished.returncode:
        print(CANNOT.format(requirement=choice.requirement, python=platform.python_version()), file=sys.stderr)
    return finished.returncode


def choose(
    known: Sequence[str],
    *,
    allowed: tuple[Version, Version],
    tested: str,
    plain_has_cuda: bool,
    for_card: bool = False,
) -> Choice:
    """Return the best build among the versions that pip knows for this Python, as pip writes them.

    Best is a CPU build, of the version that the tests ran with or else the newest one allowed. Then, where the plain
    build has no CUDA in it, the same of plain builds. Else the newest plain one, which pip itself finds in the range.
    For a card: the same of those that are no CPU builds.
    """
    fitting = sorted((version for version in known if is_allowed(version, allowed)), key=numbers, reverse=True)
    candidates = [version for version in fitting if version.endswith(CPU) != for_card]
    if not candidates and not plain_has_cuda:
        candidates = [version for version in fitting if "+" not in version]
    if candidates:
        best = next((version for version in candidates if version.split("+")[0] == tested), candidates[0])
        # Three signs: to pip, 2.13.0+cpu is a better 2.13.0 than 2.13.0 itself.
        return Choice(
            requirement=f"torch==={best}" if for_card else f"torch=={best}", has_cuda=for_card and plain_has_cuda
        )
    least, below = (".".join(map(str, version)) for version in allowed)
    return Choice(requirement=f"torch>={least},<{below}", has_cuda=plain_has_cuda)


def known_versions(pip_arguments: Sequence[str]) -> list[str]:
    """Return the versions of torch that pip would find for this Python, local ones included; none where pip fails.

    Source: `pip index versions`, which is marked experimental; without an answer the range alone decides.
    """
    listed = pip("index", "versions", *pip_arguments, "torch", captured=True)
    line = re.search(r"^Available versions: (.+)$", listed.stdout or "", re.MULTILINE)
    return line[1].split(", ") if line else []


def installed_version() -> str:
    """Return the version of the torch in this environment, empty without one."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""


def is_with_cuda(installed: str, allowed: tuple[Version, Version]) -> bool:
    """Whether what is installed, where plain builds have CUDA, has it, and is in the range."""
    return is_allowed(installed, allowed) and not installed.endswith(CPU)


def allowed_range(project: str) -> tuple[Version, Version]:
    """Return the least version that pyproject.toml takes and the first that it does not."""
    found = re.search(r'"torch>=([\d.]+),<([\d.]+)"', project)
    if not found:
        raise SystemExit("setup: pyproject.toml names no range torch>=A,<B")
    return numbers(found[1]), numbers(found[2])


def tested_version(lock: str) -> str:
    """Return the version of torch that stands in requirements.lock, empty without one."""
    found = re.search(r"^torch==([^\s;]+)", lock, re.MULTILINE)
    return found[1] if found else ""


def is_allowed(version: str, allowed: tuple[Version, Version]) -> bool:
    """Whether a version lies in the range; one that is not made of numbers (2.16.0rc1) does not."""
    least, below = allowed
    return re.fullmatch(r"[\d.]+(\+\w+)?", version) is not None and least <= numbers(version) < below


def numbers(version: str) -> Version:
    """Return the numbers of a version, without what stands behind a plus."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))


def pip(*arguments: str, captured: bool = False) -> subprocess.CompletedProcess[str]:
    """Run this interpreter's pip."""
    return subprocess.run([sys.executable, "-m", "pip", *arguments], check=False, capture_output=captured, text=True)


if __name__ == "__main__":
    sys.exit(main())
