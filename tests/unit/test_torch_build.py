"""Which torch do `make setup GPU=1` and `make setup-dev` take, on which machine, and what do they say of a large one?

Covers: the choice, and the whole program with a pip that only pretends. Does not cover: pip itself, or importing torch.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import torch_build

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = REPOSITORY / "deploy" / "torch_build.py"
RANGE = ((2, 6), (3,))
PLAIN = ["2.15.0", "2.14.1", "2.13.0", "2.6.0", "2.5.1"]
PRETENDED_PIP = """\
import json, os, sys
with open(os.environ["PIP_LOG"], "a") as log:
    print(json.dumps(sys.argv[1:]), file=log)
if sys.argv[1] == "index":
    if os.environ["PIP_KNOWS"]:
        print("torch (newest)\\nAvailable versions: " + os.environ["PIP_KNOWS"])
    sys.exit(not os.environ["PIP_KNOWS"])
sys.exit(int(os.environ.get("PIP_FAILS", "0")))
"""


def chosen(known: list[str], *, plain_has_cuda: bool, tested: str = "2.13.0") -> torch_build.Choice:
    """Return the choice among known versions, in the project's range."""
    return torch_build.choose(known, allowed=RANGE, tested=tested, plain_has_cuda=plain_has_cuda)


def install(
    tmp_path: Path, *arguments: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Run the program where no torch is installed and pip only pretends; return it and what pip was asked."""
    pretended = tmp_path / "site" / "pip"
    pretended.mkdir(parents=True)
    (pretended / "__init__.py").touch()  # without it the real one would come before it
    (pretended / "__main__.py").write_text(PRETENDED_PIP)
    log = tmp_path / "asked"
    log.touch()
    finished = subprocess.run(
        # Without site-packages (-S), so that the torch of this environment is not seen.
        [sys.executable, "-S", PROGRAM, *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PIP_LOG": str(log), "PIP_KNOWS": "",
             "PIP_NO_INDEX": "1", **environment},
    )  # fmt: skip
    return finished, [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("plain_has_cuda", [True, False])
def test_a_cpu_build_is_best_wherever_there_is_one(plain_has_cuda: bool) -> None:
    """Even where newer plain builds are known, and on every machine."""
    found = chosen(["2.15.0", "2.13.0+cpu", "2.13.0"], plain_has_cuda=plain_has_cuda)
    assert found == torch_build.Choice(requirement="torch==2.13.0+cpu", has_cuda=False)


def test_of_several_cpu_builds_the_tested_version_is_best() -> None:
    """And the newest in the range where that one is not among them."""
    known = ["3.0.0+cpu", "2.15.0+cpu", "2.9.1+cpu", "2.13.0+cpu"]
    assert chosen(known, plain_has_cuda=True).requirement == "torch==2.13.0+cpu"
    assert chosen(known, plain_has_cuda=True, tested="2.12.0").requirement == "torch==2.15.0+cpu"


def test_a_plain_build_is_taken_where_it_has_no_cuda() -> None:
    """On a Raspberry Pi and a Mac: the tested version, or the newest for this Python in the range."""
    assert chosen(PLAIN, plain_has_cuda=False) == torch_build.Choice(requirement="torch==2.13.0", has_cuda=False)
    assert chosen(["2.10.0", "2.9.1"], plain_has_cuda=False).requirement == "torch==2.10.0"


def test_where_only_cuda_builds_are_known_the_range_decides() -> None:
    """pip finds the newest that this Python has a wheel of; it is said that gigabytes come."""
    assert chosen(PLAIN, plain_has_cuda=True) == torch_build.Choice(requirement="torch>=2.6,<3", has_cuda=True)


def test_for_a_card_no_cpu_build_is_taken() -> None:
    """Exactly what is named, since to pip 2.13.0+cpu is a 2.13.0 too, and the better one."""
    found = torch_build.choose(
        ["2.15.0", "2.13.0+cpu", "2.13.0"], allowed=RANGE, tested="2.13.0", plain_has_cuda=True, for_card=True
    )
    assert found == torch_build.Choice(requirement="torch===2.13.0", has_cuda=True)
    named = torch_build.choose(
        ["2.14.0+cu130", "2.13.0+cpu"], allowed=RANGE, tested="2.13.0", plain_has_cuda=True, for_card=True
    )
    assert named.requirement == "torch===2.14.0+cu130"


@pytest.mark.parametrize(
    ("installed", "stays"), [("2.14.0", True), ("2.14.0+cpu", False), ("2.5.1", False), ("", False)]
)
def test_a_build_that_somebody_chose_for_a_card_stays(installed: str, stays: bool) -> None:
    """`make setup-dev` after `make setup GPU=1` does not put a CPU build in its place."""
    assert torch_build.is_with_cuda(installed, RANGE) is stays


@pytest.mark.parametrize("known", [[], ["2.5.1+cpu", "3.0.0", "2.16.0rc1", "2.15.0+cu130"]])
def test_nothing_known_that_fits_is_no_reason_to_stop(known: list[str]) -> None:
    """A pip without `index`, an index that lists nothing: pip is still asked for the range."""
    assert chosen(known, plain_has_cuda=False) == torch_build.Choice(requirement="torch>=2.6,<3", has_cuda=False)


def test_range_and_tested_version_are_the_projects_own() -> None:
    """They are read where they stand, so that there is one place for each."""
    assert torch_build.allowed_range((REPOSITORY / "pyproject.toml").read_text()) == RANGE
    assert re.fullmatch(r"\d+\.\d+\.\d+", torch_build.tested_version((REPOSITORY / "requirements.lock").read_text()))


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="plain torch has no CUDA here")
def test_a_large_build_is_announced_with_its_size_and_how_to_avoid_it(tmp_path: Path) -> None:
    """Before the download begins, which then shows how far it is."""
    finished, asked = install(tmp_path, "--torch", "", "--", PIP_KNOWS=", ".join(PLAIN))
    assert finished.returncode == 0
    assert re.search(r"CUDA included:\n.*\d GB to download and \d+ GB of disk", finished.stdout)
    assert "PIP_TORCH_ARGS='--index-url ADDRESS'" in finished.stdout
    assert asked == [["index", "versions", "torch"], ["install", "torch>=2.6,<3"]]


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="plain torch has no CUDA here")
def test_a_build_for_a_card_is_announced_with_its_size(tmp_path: Path) -> None:
    """Whoever asked for it is not told how to avoid it."""
    finished, asked = install(tmp_path, "--gpu", "--torch", "", "--", PIP_KNOWS=", ".join(["2.13.0+cpu", *PLAIN]))
    assert finished.returncode == 0
    assert finished.stdout == torch_build.CUDA_WANTED + "\n"
    assert asked[-1] == ["install", "torch===2.13.0"]


def test_what_make_is_told_for_pip_reaches_both_calls(tmp_path: Path) -> None:
    """An index of CPU builds is asked what it has, and installed from."""
    finished, asked = install(
        tmp_path, "--torch", "", "--", "--index-url", "https://index.invalid/cpu", PIP_KNOWS="2.13.0+cpu"
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    index = ["--index-url", "https://index.invalid/cpu"]
    assert asked == [["index", "versions", *index, "torch"], ["install", "--quiet", *index, "torch==2.13.0+cpu"]]


def test_a_torch_that_somebody_names_is_installed_as_it_stands(tmp_path: Path) -> None:
    """Nothing is chosen then."""
    finished, asked = install(tmp_path, "--torch", "torch==2.14.0", "--")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    assert asked == [["install", "--quiet", "torch==2.14.0"]]


def test_a_torch_that_cannot_be_installed_ends_in_what_to_do(tmp_path: Path) -> None:
    """With pip's exit code, so that make stops there."""
    finished, _ = install(tmp_path, "--torch", "", "--", PIP_KNOWS="2.13.0+cpu", PIP_FAILS="1")
    assert finished.returncode == 1
    assert "could not install 'torch==2.13.0+cpu'" in finished.stderr
    assert "TORCH=torch==VERSION" in finished.stderr
