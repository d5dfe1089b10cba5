"""Are slices whole or not there, whatever happens while they are made: a kill, Ctrl-C, a full disk, a second run?

Does not cover: damage done later (test_wrong_slices.py), the bytes of a slice (tests/unit).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import EXIT_INPUT, EXIT_INTERRUPTED, EXIT_RESOURCE
from tests.e2e.conftest import END_SECONDS, RunHere
from tests.support.cli import Running, Shell
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.waiting import wait_until

LAYERS = 24
"""Enough files that a slicing takes longer than it takes to be killed in the middle."""
SPLIT = ["--world-size", "4"]
SLICES = [".lock", "coordinator", "node0", "node1", "node2", "node3"]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of many layers."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("deep") / "model", layers=LAYERS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def digests(split: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of the slices, by its name."""
    return {
        str(path.relative_to(split)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in split.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def is_whole(split: Path) -> bool:
    """Say whether every file of every slice has the digest that its manifest promises, and nothing else lies there."""
    promised = {
        f"{manifest.parent.name}/{name}": entry["sha256"]
        for manifest in split.glob("*/manifest.json")
        for name, entry in json.loads(manifest.read_text())["files"].items()
    }
    found = {name: digest for name, digest in digests(split).items() if not name.endswith("manifest.json")}
    return bool(found) and found == promised


def start_slicing(shell: Shell, model: Path, save_dir: Path) -> Running:
    """Start `split` and return when a part of the slices is written."""
    running = shell.start("coordinator-cli", "split", "--model", str(model), "--save-dir", str(save_dir), *SPLIT)
    wait_until(lambda: len(list(save_dir.glob(".building/node3/*"))) > 1, limit_seconds=60, what="a part of the slices")
    assert not (save_dir / "node0").exists(), "it was too quick to be interrupted"
    return running


def test_slicing_again_after_a_kill_or_ctrl_c_is_right(shell: Shell, here: RunHere, deep: Path, tmp_path: Path) -> None:
    """Ctrl-C leaves no half slice; kill -9 leaves one that the next run does not take for whole."""
    save_dir = tmp_path / "split"
    interrupted = start_slicing(shell, deep, save_dir)
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.finish(END_SECONDS).error_line("coordinator-cli", EXIT_INTERRUPTED)
    assert [path.name for path in save_dir.iterdir()] == [".lock"]

    killed = start_slicing(shell, deep, save_dir)
    killed.process.kill()
    killed.finish(END_SECONDS)
    assert (save_dir / ".building").exists()
    assert here("coordinator-cli", "split", "--model", str(deep), "--save-dir", str(save_dir), *SPLIT).code == 0
    assert is_whole(save_dir)
    assert sorted(path.name for path in save_dir.iterdir()) == SLICES


def test_slices_are_made_again_when_the_last_run_died_while_publishing(here: RunHere, sliced: Path) -> None:
    """The marker says that what is there may be a mixture; nothing of it counts."""
    split = sliced / "split"
    before = digests(split)
    (split / ".incomplete").touch()
    shutil.rmtree(split / "node1")
    (split / "node0" / "manifest.json").write_text("half")
    finished = here("coordinator-cli", "split", "--model", str(sliced), "--world-size", "2")
    assert (finished.code, "made" in finished.err) == (0, True)
    assert digests(split) == before


def test_two_runs_that_slice_at_once_take_turns(shell: Shell, deep: Path, tmp_path: Path) -> None:
    """One makes the slices, the other waits and uses them; both end well."""
    save_dir = tmp_path / "split"
    arguments = ["split", "--model", str(deep), "--save-dir", str(save_dir), *SPLIT]
    ends = [running.finish() for running in [shell.start("coordinator-cli", *arguments) for _ in range(2)]]
    assert [end.code for end in ends] == [0, 0]
    assert sorted("there already" in end.err for end in ends) == [False, True]
    assert is_whole(save_dir)
    assert sorted(path.name for path in save_dir.iterdir()) == SLICES


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
    here: RunHere, sliced_once: Path, small_disk: Path
) -> None:
    """Exit code 6; the line says how much is needed; nothing is left."""
    (small_disk / "filler").write_bytes(bytes(1_800_000))
    line = here(
        "coordinator-cli", "generate", "--model", str(sliced_once), "--save-dir", str(small_disk / "split")
    ).error_line("coordinator-cli", EXIT_RESOURCE)
    assert str(small_disk) in line
    assert [path.name for path in (small_disk / "split").iterdir()] == [".lock"]


def test_a_disk_that_fills_up_while_slicing_keeps_the_old_slices(
    here: RunHere, sliced_once: Path, small_disk: Path
) -> None:
    """The room for the weights is there and that for the manifests is not; the slices made before still work."""
    split = small_disk / "split"
    arguments = ["split", "--model", str(sliced_once), "--save-dir", str(split), "--world-size", "2"]
    assert here("coordinator-cli", *arguments).code == 0
    before = digests(split)
    weight_bytes = sum(path.stat().st_size for path in split.rglob("*.safetensors"))
    free_bytes = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(free_bytes - weight_bytes))
    line = here("coordinator-cli", *arguments, "--split-bin").error_line("coordinator-cli", EXIT_RESOURCE)
    assert str(split) in line
    assert digests(split) == before
    again = here("coordinator-cli", *arguments)
    assert (again.code, "there already" in again.err) == (0, True)


def test_a_read_only_model_can_be_used_when_it_is_sliced(here: RunHere, sliced_once: Path, small_disk: Path) -> None:
    """Without slices, the line says where else they may go; with them, nothing needs to be written."""
    model = small_disk / "model"
    shutil.copytree(sliced_once, model, ignore=shutil.ignore_patterns("split"))
    run = ["generate", "--model", str(model), "--world-size", "2", "--prompt", "hi", "--length", "2"]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "--save-dir" in here("coordinator-cli", *run).error_line("coordinator-cli", EXIT_INPUT)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    shutil.copytree(sliced_once / "split", model / "split")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert here("coordinator-cli", *run).code == 0


def test_a_save_dir_that_is_a_file_is_refused(here: RunHere, sliced: Path) -> None:
    """The file stays as it is."""
    finished = here("coordinator-cli", "split", "--model", str(sliced), "--save-dir", "config.json")
    assert "config.json" in finished.error_line("coordinator-cli", EXIT_INPUT)
    below = here("coordinator-cli", "split", "--model", str(sliced), "--save-dir", "config.json/deeper")
    assert "--save-dir" in below.error_line("coordinator-cli", EXIT_INPUT)
    assert (sliced / "config.json").read_text().startswith("{")
