"""What the tests under a real systemd share: one machine, installed by deploy/install.sh, that is coordinator and node.

Does not cover: the machine itself (tests/support/systemd_machine.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.random_models import build, save
from tests.support.systemd_machine import Machine, base_system, why_not
from tests.support.systemd_services import (
    DATA,
    INSTALL,
    MODEL,
    NODE,
    NODE_CONFIG,
    PROGRAMS,
    SERVICES,
    STATE,
    WIDE_MODEL,
)
from tests.support.tiny_checkpoint import write_tiny_checkpoint


def readable(directory: Path) -> Path:
    """Let the services' user read a model."""
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return directory


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model, readable by everyone."""
    return readable(write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model whose weights take 470 MB, and whose keys and values 64 KiB a token, readable by everyone."""
    wide = build(
        hidden_size=512, intermediate_size=8192, layers=8, query_heads=8, kv_heads=8, head_size=128, vocab_size=320,
        max_position_embeddings=32768,
    )  # fmt: skip
    return readable(save(wide, tmp_path_factory.mktemp("wide") / "model"))


@pytest.fixture(scope="session")
def bare(model: Path, wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a machine that has the repository and nothing of ours installed."""
    if reason := why_not():
        pytest.skip(reason)
    machine = Machine(
        base_system(), tmp_path_factory.mktemp("machine"), {model: MODEL, wide_model: WIDE_MODEL}, disks=[DATA]
    )
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def installed(bare: Machine) -> Machine:
    """Return the machine once both services run, by the commands of deploy/README.md."""
    bare.must(INSTALL, "coordinator")
    bare.must_as_service_user(f"{PROGRAMS}/coordinator-cli", "mesh", "init", "--state-dir", STATE)
    bare.must("systemctl", "enable", "--now", "coordinator")
    invited = bare.must_as_service_user(f"{PROGRAMS}/coordinator-cli", "mesh", "invite", "--state-dir", STATE)
    command = invited.split()
    assert command[:2] == ["shardnode", "join"]
    bare.must(INSTALL, "node")
    joining = (f"{PROGRAMS}/shardnode", "join", command[2], "--name", NODE, "--data-dir", DATA)
    bare.must("runuser", "-u", "shardmesh", "--", *joining)
    bare.must("install", "-m", "644", f"{DATA}/shardnode.toml", NODE_CONFIG)
    bare.must("systemctl", "enable", "--now", "shardnode")
    return bare


@pytest.fixture
def machine(installed: Machine) -> Machine:
    """Return the machine with both services running and nothing counted against them."""
    for service in SERVICES:
        installed.must("systemctl", "reset-failed", service)
        installed.must("systemctl", "restart", service)
    return installed
