"""What is installed for what: what runs, what the tests run on, what changing shardmesh takes?

Covers: pyproject.toml, requirements.lock and the Makefile, as far as reading them and `make -n` tell.
Does not cover: installing (pip's part), the wheel (e2e/test_wheel.py), which torch (test_torch_build.py).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from deploy import locked_versions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT_TEXT = (REPOSITORY / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PROJECT_TEXT)["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LARGE = {"torch", "transformers", "accelerate"}
NO_WEIGHT = ("setup", "run", "test", "test-kernels", "wheel")


def names(requirements: list[str]) -> set[str]:
    """Return the packages that these name."""
    return {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}


def plan(tmp_path: Path, *arguments: str) -> str:
    """Return what make would do with these arguments in a fresh clone."""
    locks = ("requirements.lock", "run.lock", "test.lock")
    for name in ("Makefile", "pyproject.toml", *locks, "hatch_build.py", "deploy", "common"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "*.dylib", "__pycache__"))
        else:
            shutil.copy(source, tmp_path)
    finished = subprocess.run(["make", "-n", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    return finished.stdout


def test_nothing_that_runs_or_is_tested_takes_torch() -> None:
    """It is an extra, for cards and for .bin checkpoints; whoever changes shardmesh has all."""
    assert not LARGE & (names(PROJECT["dependencies"]) | names(EXTRAS["test"]))
    assert names(EXTRAS["torch"]) == {"torch"}
    assert "shardmesh[torch,test]" in EXTRAS["dev"]


def test_every_dependency_says_why_it_is_one() -> None:
    """On its line."""
    lines = re.findall(r"^    \"[\w.\[\],-]+ ?[<>=\[].*$", PROJECT_TEXT, re.MULTILINE)
    required = [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]
    assert len(lines) == len(required)
    assert [line for line in lines if not re.search(r",\s+# \S", line)] == []


def test_one_lock_has_a_version_for_everything() -> None:
    """Of what runs and of every extra: whatever is installed takes the same versions; only tomli is for 3.10 alone."""
    locked = {line.split("==")[0].lower().replace("_", "-") for line in lock_lines()}
    required = names([*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)])
    assert required - locked == {"shardmesh", "tomli"}


def test_the_lock_holds_on_the_oldest_python_as_far_as_its_versions_exist() -> None:
    """A version that needs a newer one says so, and pip leaves its line out elsewhere."""
    assert locked_versions.marker(">=3.9") == locked_versions.marker("") == ""
    assert locked_versions.marker("!=3.14.1,>=3.11") == "; python_version >= '3.11'"
    assert all(re.fullmatch(r"[\w.-]+==(\d+!)?[\w.]+(; python_version >= '3\.\d+')?", line) for line in lock_lines())


def test_what_one_machine_alone_has_is_not_locked(tmp_path: Path) -> None:
    """Ourselves, pip, what comes with CUDA, and builds of a version."""
    for name, version in (
        ("torch", "2.13.0+cpu"),
        ("Zeta", "1.0"),
        ("pip", "25"),
        ("nvidia-nccl", "2"),
        ("shardmesh", "0"),
    ):
        directory = tmp_path / f"{name}.dist-info"
        directory.mkdir()
        (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    found = [Distribution.at(directory) for directory in tmp_path.iterdir()]
    assert locked_versions.lines(found) == ["torch==2.13.0", "Zeta==1.0"]


@pytest.mark.parametrize("target", NO_WEIGHT)
def test_a_fresh_clone_installs_no_more_than_a_command_takes(tmp_path: Path, target: str) -> None:
    """By hashes, after the kernels: without a compiler nothing is downloaded."""
    done = plan(tmp_path, target)
    lock = "test.lock" if target.startswith("test") else "run.lock"
    expected = [] if target == "wheel" else [lock]
    assert re.findall(r"pip install .*--require-hashes -r (\S+)", done) == expected
    assert re.findall(r"pip install .* -e (\S+)", done) == ["."] * len(expected)
    assert "torch_build.py" not in done
    assert done.index("-m common.native.build") < done.index("-m pip")


@pytest.mark.parametrize("target", ["verify", "golden", "bench", "test-tokenizers", "protos", "lock", "setup-dev"])
def test_what_changes_or_compares_installs_everything(tmp_path: Path, target: str) -> None:
    """torch first, in the build that is chosen for this machine."""
    done = plan(tmp_path, target)
    assert re.findall(r"pip install .* -e (\S+)", done) == [".", "'.[dev]'"]
    assert "torch_build.py --gpu" not in done
    assert done.index("torch_build.py") < done.index("pip install")


@pytest.mark.parametrize("arguments", [["setup", "GPU=1"], ["test-gpu"]])
def test_a_card_gets_a_build_that_uses_it(tmp_path: Path, arguments: list[str]) -> None:
    """Whatever else pip knows."""
    assert "torch_build.py --gpu" in plan(tmp_path, *arguments)


@pytest.mark.parametrize(("setting", "code"), [("GPU=", 2), ("GPU=1", 0)])
def test_only_who_computes_on_a_card_goes_on_without_kernels(tmp_path: Path, setting: str, code: int) -> None:
    """With no compiler: a node on a card multiplies with torch; for the processor nothing more is downloaded."""
    plan(tmp_path, "setup")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    library = f"common/native/matmul.{'dylib' if sys.platform == 'darwin' else 'so'}"
    finished = subprocess.run(["make", library, setting], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == code
    assert ("only nodes with --use-gpu can compute here" in finished.stderr) is (code == 0)


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    """What changing takes includes what the tests run on, and that what runs."""
    plan(tmp_path, "setup")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    (tmp_path / "common" / "native" / ("matmul.dylib" if sys.platform == "darwin" else "matmul.so")).touch()
    for stamp in ("torch", "run", "test", "dev"):
        (tmp_path / ".venv" / f".ready-{stamp}").touch()
    for target in ("setup", "run", "test", "verify"):
        finished = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "pip install" not in finished.stdout


@pytest.mark.parametrize(("lock", "extra"), [("run.lock", []), ("test.lock", ["test", "otel"])])
def test_a_lock_has_hashes_of_all_that_it_installs(lock: str, extra: list[str]) -> None:
    """Of every file of each version, in the versions of the one lock where Python is what the tests ran with."""
    entries = re.split(r"\n(?=\S)", (REPOSITORY / lock).read_text().strip())
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    pinned = {entry.split("==")[0].lower().replace("_", "-") for entry in entries}
    required = names([*PROJECT["dependencies"], *(one for name in extra for one in EXTRAS[name])])
    assert required - pinned <= {"shardmesh"}
    versions = {line.split(";")[0].lower().replace("_", "-") for line in lock_lines()}
    ours = [re.split(r"[ \\;]", entry)[0].lower().replace("_", "-") for entry in entries if "< '3.11'" not in entry]
    known = {line.split("==")[0] for line in versions}
    assert [one for one in ours if one.split("==")[0] in known and one not in versions] == []


def lock_lines() -> list[str]:
    """Return what stands in requirements.lock, its comments left out."""
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]
