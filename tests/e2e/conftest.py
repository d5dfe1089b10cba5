"""What the tests of whole programs share: a shell that must be left clean, and a tiny model with slices.

Does not cover: other folders' fixtures.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shardnode.config import NodeConfig
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
        assert not made.torch_imports, "only --use-gpu, --backend torch and .bin checkpoints need torch"
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


@pytest.fixture
def serving(sliced_once: Path) -> Iterator[str]:
    """Return where two nodes serve, in threads of this process: for what does not depend on who computes."""
    from shardnode.run import RunningNode

    with ExitStack() as closing:
        # Not pytest's directory: a Unix socket's path has 108 bytes at most.
        sockets = closing.enter_context(tempfile.TemporaryDirectory(prefix="shardmesh-"))
        addresses = []
        for rank in range(2):
            node = RunningNode(NodeConfig(
                slice_directory=sliced_once / "split" / f"node{rank}", listen=f"unix:{sockets}/node{rank}.sock",
                thread_count=1,
            ))  # fmt: skip
            closing.callback(node.close)
            addresses.append(node.address)
        yield ",".join(addresses)
