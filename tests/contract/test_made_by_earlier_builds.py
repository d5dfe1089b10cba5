"""Is what earlier builds have made on people's disks still what this one takes and makes?

Covers: slices, to the byte; the records of a mesh: members, models, plans. Does not cover: a whole mesh with its
certificates, slices and units (tests/e2e/test_mesh_of_an_earlier_build.py).

The files beside this one were made by commit e3cc05c: a tiny model cut for two nodes, and the state of a mesh with one
node and that model loaded.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from common.weights.checksums import SHA256
from common.weights.manifest import read_manifest
from common.weights.open_tiles import sweep_tiles
from coordinator.membership.book import Book
from coordinator.membership.members import Members
from coordinator.models.records import LoadedModels
from tests.support.mesh import run_alone, sliced, thread_mesh
from tests.support.older_slices import make_older
from tests.support.tiny_checkpoint import write_tiny_checkpoint

HERE = Path(__file__).resolve().parent / "made_by_e3cc05c"


def digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory, by its path there."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_slices_are_those_of_before_to_the_byte(tmp_path: Path) -> None:
    """So what lies on the nodes is neither cut nor sent again. Manifests are, but for what they say of XXH3."""
    expected = json.loads((HERE / "slices.json").read_text())
    with sliced(write_tiny_checkpoint(tmp_path / "model"), tmp_path / "slices", world_size=2):
        found = digests(tmp_path / "slices")
    different = {name for name, digest in expected["files"].items() if found.get(name) != digest}
    assert different == {"coordinator/manifest.json", "node0/manifest.json", "node1/manifest.json"}
    for name in different:
        make_older((tmp_path / "slices" / name).parent)
    assert digests(tmp_path / "slices") == expected["files"]


def test_slices_of_before_are_used_as_they_lie_there(tmp_path: Path) -> None:
    """Every tile is checked by its SHA-256, the answer is the same, and nothing is written."""
    expected = json.loads((HERE / "slices.json").read_text())
    model, slices = write_tiny_checkpoint(tmp_path / "model"), tmp_path / "slices"
    with sliced(model, slices, world_size=2) as local, thread_mesh(local, memory_window=2) as mesh:
        tokens = run_alone(mesh, [1, 2, 3], length=5)
    for name in ("coordinator", "node0", "node1"):
        make_older(slices / name)
    with sliced(model, slices, world_size=2) as local, thread_mesh(local, memory_window=2) as mesh:
        assert run_alone(mesh, [1, 2, 3], length=5) == tokens
    assert digests(slices) == expected["files"]
    manifest = read_manifest(slices / "node1")
    assert (manifest.model_identity, manifest.plan.digest) == (expected["model_identity"], expected["plan_digest"])
    assert {tile.checksum.kind for tile in sweep_tiles(slices / "node1", manifest) if tile.checksum} == {SHA256}


def test_members_and_models_of_before_are_read(tmp_path: Path) -> None:
    """Nobody joins again, and no model is loaded again."""
    shutil.copytree(HERE / "state", tmp_path / "state")
    (member,) = Members(Book(tmp_path / "state")).all()
    assert member.name == "kitchen"
    (model,) = LoadedModels(tmp_path / "state").all()
    assert (model.name, list(model.node_names)) == ("tiny", ["kitchen"])
    (attempt,) = LoadedModels(tmp_path / "state").attempts()
    assert attempt.description.slice_id == model.description.slice_id
