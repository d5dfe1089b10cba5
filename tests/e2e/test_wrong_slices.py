"""What happens to slices that are damaged, or that belong to something else? Exit code 4, and never a wrong token.

Does not cover: interrupted slicing (test_slicing_interrupted.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common.errors import EXIT_INPUT, EXIT_SLICE
from tests.e2e.conftest import RunHere
from tests.support.cli import Shell
from tests.support.older_slices import make_older
from tests.support.tiny_checkpoint import change_config, write_tiny_checkpoint

RUN = ["--world-size", "2", "--prompt", "hi", "--length", "4", "--temperature", "0"]


def flip(path: Path, offset: int) -> None:
    """Change one bit of the byte at `offset`; below 0 it counts from the end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("age", ["new", "older"])
def test_a_flipped_byte_in_a_nodes_slice_is_found_and_the_node_named(shell: Shell, sliced: Path, age: str) -> None:
    """The node finds it when it first reads the tile; the coordinator prints no token and ends everything."""
    if age == "older":
        make_older(sliced / "split" / "node1")
    (blocks := sorted((sliced / "split" / "node1").glob("*.safetensors")))
    flip(blocks[-1], 5000)
    finished = shell.run("coordinator-cli", "generate", "--model", str(sliced), *RUN)
    line = finished.error_line("coordinator-cli", EXIT_SLICE)
    assert "node 1" in line
    assert blocks[-1].name in line
    assert "--split-bin" in line
    assert finished.out == ""


@pytest.mark.parametrize(
    ("file", "offset"),
    [
        ("coordinator/head.safetensors", 5000),
        ("coordinator/embedding.safetensors", 5000),
        ("coordinator/norms.safetensors", 4100),
        ("coordinator/manifest.json", 200),
        ("node0/manifest.json", -200),
    ],
)
def test_a_flipped_byte_in_any_other_file_is_found(here: RunHere, sliced: Path, file: str, offset: int) -> None:
    """The head, the embedding, the norms, the manifests: the line names the file and how to repair it."""
    flip(sliced / "split" / file, offset)
    finished = here("coordinator-cli", "generate", "--model", str(sliced), *RUN)
    line = finished.error_line("coordinator-cli", EXIT_SLICE)
    assert file in line
    assert "--split-bin" in line
    assert finished.out == ""


def test_a_damaged_slice_is_repaired_with_split_bin(here: RunHere, sliced: Path) -> None:
    """What the error says to do works."""
    flip(sliced / "split" / "coordinator" / "manifest.json", 200)
    good = here("coordinator-cli", "generate", "--model", str(sliced), *RUN, "--split-bin")
    again = here("coordinator-cli", "generate", "--model", str(sliced), *RUN)
    assert (good.code, again.code) == (0, 0)
    assert good.out == again.out != ""


def test_a_missing_or_short_block_file_is_named(here: RunHere, sliced: Path) -> None:
    """A file that is not there, and one that is too short; found before anything is computed."""
    first, second = sorted((sliced / "split" / "node0").glob("*.safetensors"))[:2]
    first.write_bytes(first.read_bytes()[:-4096])
    assert first.name in here("coordinator-cli", "split", "--model", str(sliced), "--world-size", "2").error_line(
        "coordinator-cli", EXIT_SLICE
    )
    first.unlink()
    second.unlink()
    line = here("shardnode", "--slice-dir", str(sliced / "split" / "node0")).error_line("shardnode", EXIT_SLICE)
    assert first.name in line


def test_slices_of_another_plan_are_refused_with_what_differs(here: RunHere, sliced: Path) -> None:
    """Another number of nodes, other ratios, another dtype; the slices stay as they are."""
    before = sorted(path.name for path in (sliced / "split").iterdir())
    for wish, named in (
        (["--world-size", "3"], "3 nodes"),
        (["--world-size", "2", "--split-strategy", "ratio:3,1"], "ratio:3,1"),
        (["--world-size", "2", "--weights-dtype", "bfloat16"], "bfloat16"),
    ):
        line = here("coordinator-cli", "split", "--model", str(sliced), *wish).error_line("coordinator-cli", EXIT_SLICE)
        assert named in line
        assert "--split-bin" in line
    assert sorted(path.name for path in (sliced / "split").iterdir()) == before


def test_slices_of_another_model_are_refused(here: RunHere, sliced: Path, tmp_path: Path) -> None:
    """A model with the same shapes and other weights, or other maths, does not run with them."""
    other = write_tiny_checkpoint(tmp_path / "other", seed=1)
    shutil.copytree(sliced / "split", other / "split")
    change_config(sliced, rope_theta=20000.0)
    for model in (other, sliced):
        finished = here("coordinator-cli", "generate", "--model", str(model), *RUN)
        assert "another model" in finished.error_line("coordinator-cli", EXIT_SLICE)


def test_a_slice_in_another_ranks_place_is_refused(here: RunHere, sliced: Path) -> None:
    """Two node directories that changed places are noticed."""
    split = sliced / "split"
    (split / "node0").rename(split / "spare")
    (split / "node1").rename(split / "node0")
    (split / "spare").rename(split / "node1")
    line = here("coordinator-cli", "split", "--model", str(sliced), "--world-size", "2").error_line(
        "coordinator-cli", EXIT_SLICE
    )
    assert "rank 1 instead of 0" in line


def test_shardnode_refuses_what_is_no_slice_of_a_node(here: RunHere, sliced: Path, tmp_path: Path) -> None:
    """An empty directory, a place that is not there, and the coordinator's own slice."""
    for place in (tmp_path, tmp_path / "nowhere"):
        assert str(place) in here("shardnode", "--slice-dir", str(place)).error_line("shardnode", EXIT_SLICE)
    own = sliced / "split" / "coordinator"
    assert "coordinator" in here("shardnode", "--slice-dir", str(own)).error_line("shardnode", EXIT_INPUT)
