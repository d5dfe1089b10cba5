"""What lies on a node's disk after loads that were interrupted: what its models need, and nothing else?

Covers: coordinator/models/loading.py and coordinator/models/replacing.py with a real node. Does not cover: sending
(test_slice_shipping.py), answers (test_asking_a_coordinator.py), the program that loads (test_model_service.py), kills
of whole programs (tests/support/kill_points.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import InputError, ModelNotFound
from coordinator.cli.load import load as load_as_typed
from coordinator.cli.mesh_init import init
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.reach import owner_access
from coordinator.models import loading, replacing, unloading
from coordinator.models.records import LoadedModels
from coordinator.models.unloading import unload
from tests.support.loaded_here import load_here
from tests.support.mesh_members import LIMIT_SECONDS
from tests.support.random_models import build, save
from tests.support.shipped_slices import NAME, ShippingMesh
from tests.support.waiting import wait_until


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[ShippingMesh]:
    """Return a coordinator and a node that it hears."""
    with ShippingMesh(tmp_path) as made:
        access = owner_access(tmp_path / "state")
        wait_until(lambda: access.nodes()[0].silent_seconds >= 0, limit_seconds=LIMIT_SECONDS, what="the node is heard")
        yield made


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Return three models of one shape."""
    return [save(build(seed=seed, vocab_size=320), tmp_path / f"model{seed}") for seed in range(3)]


def put(state: Path, model: Path, name: str) -> str:
    """Load a model by a name; return its slice's."""
    return load_here(state, model, [NAME], name)


def held(mesh: ShippingMesh) -> set[str]:
    """Return the slices on the node's disk, whole ones and others."""
    slices = mesh.data / "slices"
    return {path.name for path in (*slices.iterdir(), *(slices / "arriving").iterdir())} - {"arriving"}


def interrupted_at(step: str, state: Path, model: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a load that comes as far as a step of it."""

    def fail(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    places = {"remove_slice": unloading, "serve_slice": replacing}
    with monkeypatch.context() as patch:
        patch.setattr(places.get(step, loading), step, fail)
        with pytest.raises(KeyboardInterrupt):
            put(state, model, name)


@pytest.mark.parametrize("step", ["serve_slice", "_keep_tokenizer", "remove_slice"])
def test_what_an_interrupted_load_replaces_goes_with_the_next_one(
    mesh: ShippingMesh, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whether its record was written by then or not: a slice that no model needs would fill the disk for ever."""
    state = tmp_path / "state"
    put(state, models[0], "first")
    interrupted_at(step, state, models[1], "first", monkeypatch)
    again = put(state, models[1], "first")
    assert held(mesh) == {again}
    assert mesh.served() == again


def test_what_has_arrived_for_another_model_stays_for_its_next_attempt(
    mesh: ShippingMesh, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its load was interrupted too; what is there is not sent again."""
    state = tmp_path / "state"
    interrupted_at("_keep_tokenizer", state, models[0], "first", monkeypatch)
    (waiting,) = held(mesh)
    second = put(state, models[1], "second")
    assert held(mesh) == {waiting, second}
    interrupted_at("_keep_tokenizer", state, models[2], "first", monkeypatch)
    third = put(state, models[2], "first")
    assert held(mesh) == {second, third}


def test_a_load_that_nobody_wants_any_more_is_unloaded(
    mesh: ShippingMesh, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has sent would stay on the nodes for a next attempt that never comes; loaded models stay."""
    state = tmp_path / "state"
    first = put(state, models[0], "first")
    interrupted_at("_keep_tokenizer", state, models[1], "second", monkeypatch)
    records, access = LoadedModels(state), owner_access(state)
    assert [model.name for model in records.interrupted()] == ["second"]
    for name in ("third", "", ".", "../models"):
        with pytest.raises(ModelNotFound, match="there are: first, second"):
            unload(name, records, access)
    assert len(held(mesh)) == 2
    assert unload("second", records, access) == []
    assert held(mesh) == {first}
    assert [model.name for model in (*records.all(), *records.attempts())] == ["first", "first"]


def test_a_node_that_is_named_twice_is_refused_before_anything_is_measured_or_sent(
    mesh: ShippingMesh, models: list[Path], tmp_path: Path
) -> None:
    """A node serves one slice: the second would replace the first, and the model of before would be gone."""
    with pytest.raises(InputError, match=f"names {NAME} more than once"):
        load_as_typed(models[0], nodes=f"{NAME}, {NAME}", state_dir=tmp_path / "state")
    assert not held(mesh)


def test_a_dtype_that_is_unknown_is_refused_before_a_load_begins(
    mesh: ShippingMesh, models: list[Path], tmp_path: Path
) -> None:
    """Half a minute later is late for a letter that is wrong."""
    with pytest.raises(InputError, match="--weights-dtype is 'int8'"):
        load_as_typed(models[0], weights_dtype="int8", state_dir=tmp_path / "state")
    with OwnerClient(tmp_path / "state") as owner:
        assert not owner.loads()


def test_what_is_printed_after_a_load_is_what_to_type(
    mesh: ShippingMesh, models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the mesh that was named, also where its directory has a space; and so after a mesh was made."""
    state = tmp_path / "state"
    load_as_typed(models[0], split_strategy="uniform", state_dir=state)
    assert f"--coordinator {mesh.coordinator.address} --state-dir {state} --prompt" in capsys.readouterr().err
    init("home", tmp_path / "a new one")
    assert f"mesh invite --state-dir '{tmp_path}/a new one' for each" in capsys.readouterr().err
