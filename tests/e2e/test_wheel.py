"""Does a wheel that was built here run where there is no compiler, on its own kernels?

Covers: building it as `make wheel` does, installing it, its three programs, a product.
Does not cover: what it is called on other machines (unit/test_native_library.py), dependencies, which come from this
environment.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from common.native.build import BuildFailed, system_compiler
from tests.support.quick_compiler import quick_compiler

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = (
    "protos", "common", "shardnode", "coordinator", "pyproject.toml", "hatch_build.py", "README.md", ".gitignore",
)  # fmt: skip
NEEDED = ("sh", "env", "readlink", "dirname", "true")
"""What start scripts call."""
PRODUCT = """
import numpy as np
import common
from common.compute.matmul import multiply
rows, weight = np.ones((3, 64), np.float32), np.full((64, 8), 2, np.float16)
assert (multiply(rows, weight) == 128).all()
print(common.__path__[0])
"""


def has_compiler() -> bool:
    """Whether a wheel with kernels can be built here."""
    try:
        return bool(system_compiler())
    except BuildFailed:
        return False


pytestmark = pytest.mark.skipif(not has_compiler(), reason="there is no C compiler to build kernels with")


def run(*command: str | Path, environment: Mapping[str, str] | None = None, where: Path | None = None) -> str:
    """Run a command that has to succeed, and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=where, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel of a copy of this tree, so that no other test's library is built anew under it."""
    tree = tmp_path_factory.mktemp("tree")
    environment = {**os.environ, "CC": shlex.join(quick_compiler(tmp_path_factory.mktemp("compiler")))}
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("*.so", "*.dylib", "__pycache__"))
        else:
            shutil.copy(source, tree)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tree / "dist")
    run(sys.executable, "-m", "pip", "wheel", *options, tree, environment=environment)
    (built,) = (tree / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the programs of an environment are that has nothing but the wheel."""
    directory = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", directory)
    run(sys.executable, "-m", "pip", "--python", directory / "bin" / "python", "install", "--quiet", "--no-deps", wheel)
    return directory / "bin"


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """Return an environment without a compiler, in which this one's packages are found, all but our own."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found is not None
        (commands / name).symlink_to(found)
    return {"PATH": str(commands), "PYTHONPATH": sysconfig.get_path("purelib"), "HOME": str(tmp_path)}


def test_a_wheel_is_for_every_python_and_for_machines_of_this_kind(wheel: Path) -> None:
    """Its kernels are plain C, so no Python is in its name; the system and the processor are."""
    assert "-py3-none-" in wheel.name
    assert wheel.name.removesuffix(".whl").endswith(os.uname().machine.lower())


@pytest.mark.parametrize("program", ["shardnode", "coordinator", "coordinator-cli"])
def test_its_programs_start_where_there_is_no_compiler(
    programs: Path, bare: dict[str, str], tmp_path: Path, program: str
) -> None:
    """By the Python beside them."""
    assert run(programs / program, "--version", environment=bare, where=tmp_path).startswith(program)


def test_it_computes_on_the_kernels_that_it_brought(programs: Path, bare: dict[str, str], tmp_path: Path) -> None:
    """Nothing of the tree that it was built from is needed."""
    path = Path(run(programs / "python", "-c", PRODUCT, environment=bare, where=tmp_path).strip())
    assert path.is_relative_to(programs.parent.resolve())
    assert list(path.glob("native/matmul.*[!c]"))
