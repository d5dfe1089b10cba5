"""Can an operator copy what lies in deploy/, and does it say what systemd and our programs understand?"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from common.program.lifecycle import CLOSE_SECONDS, DRAIN_SECONDS, LAST_WORDS_SECONDS, STACKS_SECONDS
from common.program.service_notify import STOP_SECONDS
from coordinator.cli.coordinator import app as coordinator
from shardnode.cli import app as shardnode

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
INSTALLED = "/opt/shardmesh/.venv/bin"
MOST_EXPOSURE = 3.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture(params=UNITS, ids=lambda path: path.name)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a unit as it would be installed, but for where the programs are."""
    copy = tmp_path / request.param.name
    text = request.param.read_text().replace(INSTALLED, str(Path(sys.executable).parent))
    copy.write_text(text.replace("file:/opt/shardmesh/deploy/README.md", f"file:{DEPLOY}/README.md"))
    return copy


def test_there_is_a_unit_for_each_service() -> None:
    """One for each program that keeps running."""
    assert [path.name for path in UNITS] == ["coordinator.service", "shardnode.service"]


@needs_systemd
def test_systemd_has_nothing_to_say_about_a_unit(unit: Path) -> None:
    """It exits with 0 on unknown keys, so that what it prints is what counts."""
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_a_unit_leaves_little_open(unit: Path) -> None:
    """By systemd's own measure."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) < MOST_EXPOSURE


@pytest.mark.parametrize(("name", "app"), [("shardnode", shardnode), ("coordinator", coordinator)])
def test_a_sample_names_options_that_there_are(name: str, app: typer.Typer) -> None:
    """All of them, and of the right types."""
    sample = tomllib.loads((DEPLOY / "config" / f"{name}.toml").read_text())
    command = get_command(app)
    assert sample
    arguments = [word for key, value in sample.items() for word in (f"--{key}", str(value))]
    context = command.make_context(name, arguments)
    assert set(context.params) >= {key.replace("-", "_") for key in sample}


def test_systemd_waits_longer_for_a_service_than_it_takes_to_end(unit: Path) -> None:
    """Answers come to their end, or are told why not; then what hangs is told to the log before systemd kills."""
    (timeout,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
    assert (DRAIN_SECONDS, int(timeout)) == (20, STOP_SECONDS)
    assert DRAIN_SECONDS + LAST_WORDS_SECONDS < CLOSE_SECONDS
    assert int(timeout) > CLOSE_SECONDS + STACKS_SECONDS
    (page,) = re.findall(r"podman stop -t (\d+)", (DEPLOY / "README.md").read_text())
    assert page == timeout


def test_the_operators_page_names_every_file() -> None:
    """By its name, or its folder's files all together; the nearest page does. So nobody has to guess what it is for."""
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "README.md":
            page = next(folder / "README.md" for folder in path.parents if (folder / "README.md").exists()).read_text()
            assert path.name in page or f"{path.parent.name}/*{path.suffix}" in page, path
