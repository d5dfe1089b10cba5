"""What the tests of whole programs share: a shell that must be left clean, and a tiny model with slices.

Does not cover: other folders' fixtures.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cli import Finished, Name, Shell, run_here
from tests.support.tiny_checkpoint import write_tiny_checkpoint

END_SECONDS = 5.0
"""What must end by itself has this long (design.md, promise P2)."""

RunHere = Callable[..., Finished]


@pytest.fixture
def shell() -> Iterator[Shell]:
    """Return a shell; fail when a process or a temporary file outlives the test."""
    made = Shell()
    try:
        yield made
        made.wait_until_nothing_is_left(END_SECONDS)
    finally:
        made.close()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunHere:
    """Return a function that runs a program inside this process: here("coordinator-cli", "split", ...)."""

    def run(program: Name, *arguments: str) -> Finished:
        return run_here(program, list(arguments), monkeypatch, capfd)

    return run


@pytest.fixture(scope="session")
def sliced_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model with slices for two nodes that no test changes."""
    from coordinator.models.local_model import LocalModel, ModelOptions

    directory = write_tiny_checkpoint(tmp_path_factory.mktemp("sliced") / "model")
    model = LocalModel(ModelOptions(model=directory, world_size=2))
    model.slice(lambda done, total: None)
    model.close()
    return directory


@pytest.fixture
def sliced(sliced_once: Path, tmp_path: Path) -> Path:
    """Return a copy, to be damaged, of a tiny model with slices for two nodes."""
    return Path(shutil.copytree(sliced_once, tmp_path / "model"))
