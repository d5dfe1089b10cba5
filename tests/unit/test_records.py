"""Are models that were loaded found again as they were, and damaged records told and never guessed?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from common.errors import InputError, ModelNotFound, NodeFault, NodeLost
from common.model.plan import make_plan
from common.program.state_files import copy_of
from common.weights.slice_description import COORDINATOR_RANK, SliceDescription
from coordinator.models.node_slices import state_of
from coordinator.models.records import LoadedModel, LoadedModels, name_for
from tests.support.planned_models import DESCRIPTION

PLANNED = replace(DESCRIPTION, plan=make_plan(DESCRIPTION.spec, "ratio:2,1", 2))
NODES = ("attic", "kitchen")


def loaded(state: Path, name: str, description: SliceDescription = PLANNED) -> LoadedModel:
    """Return a model as a load leaves it."""
    models = LoadedModels(state)
    directory = models.directory / name
    directory.mkdir(parents=True)
    model = LoadedModel(
        name=name, directory=directory, source="/models/x", description=description, node_names=NODES
    )  # fmt: skip
    models.save(model)
    return model


def test_a_model_is_found_again_by_its_name_or_as_the_only_one(tmp_path: Path) -> None:
    """With plan, nodes and slices."""
    with pytest.raises(ModelNotFound, match="coordinator-cli load"):
        LoadedModels(tmp_path).get("")
    first = loaded(tmp_path, "first")
    assert LoadedModels(tmp_path).get("") == LoadedModels(tmp_path).get("first") == first
    assert [one.rank for one in first.slices()] == [0, 1]
    loaded(tmp_path, "second")
    with pytest.raises(InputError, match="several models"):
        LoadedModels(tmp_path).get("")
    with pytest.raises(ModelNotFound, match="there are: first, second"):
        LoadedModels(tmp_path).get("../first")
    LoadedModels(tmp_path).forget(first.name)
    assert [model.name for model in LoadedModels(tmp_path).all()] == ["second"]


@pytest.mark.parametrize(
    "changes",
    [{"format": 99}, {"nodes": ["attic"]}, {"description": {}}, {"nodes": None}, {"source": None, "x": 1}], ids=str,
)  # fmt: skip
def test_a_damaged_record_is_told_with_what_to_do(tmp_path: Path, changes: dict[str, object]) -> None:
    """Another format, too few nodes, no description; what is only unknown does no harm."""
    record = loaded(tmp_path, "first").directory / "model.json"
    for path in (record, copy_of(record)):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    if "x" in changes:
        assert LoadedModels(tmp_path).get("first").node_names == NODES
        return
    with pytest.raises(InputError, match="load the model again"):
        LoadedModels(tmp_path).get("first")


def test_a_damaged_record_is_no_matter_to_another_model(tmp_path: Path) -> None:
    """Whoever asks by name gets an answer from the model that is well."""
    well = loaded(tmp_path, "well")
    damaged = loaded(tmp_path, "damaged").directory / "model.json"
    for path in (damaged, copy_of(damaged)):
        path.write_text("{")
    assert LoadedModels(tmp_path).get("well") == well


def test_a_plan_is_gone_on_with_for_the_same_model_on_the_same_nodes_only(tmp_path: Path) -> None:
    """A measured plan is another one each time, and other slices would be sent."""
    models = LoadedModels(tmp_path)
    models.directory.mkdir()
    assert models.planned("m", DESCRIPTION, NODES) is None
    models.plan_ahead(
        LoadedModel(name="m", directory=models.directory / "m", source="", description=PLANNED, node_names=NODES)
    )
    assert models.planned("m", DESCRIPTION, NODES) == PLANNED.plan
    assert models.planned("m", DESCRIPTION, NODES[:1]) is None
    assert models.planned("m", replace(DESCRIPTION, model_identity="other"), NODES) is None
    assert models.planned("m", replace(DESCRIPTION, dtype="float32"), NODES) is None
    assert PLANNED.rank == COORDINATOR_RANK


def test_a_model_is_called_as_its_directory_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    """Names are directories here and words on command lines."""
    assert name_for(tmp_path / "My Model (v2)") == "My-Model-v2"
    assert name_for(tmp_path / "x", "chosen.1") == "chosen.1"
    for wrong in ("../x", "", " ", "a/b", "-a", "é"):
        if wrong:
            with pytest.raises(InputError, match="cannot be called"):
                name_for(tmp_path / "x", wrong)


@pytest.mark.parametrize(
    ("error", "told"),
    [(NodeLost("gone"), "attic is not reached"), (NodeFault("attic: internal error"), "attic: internal error")],
)  # fmt: skip
def test_a_node_that_answers_with_a_fault_is_not_said_to_be_away(tmp_path: Path, error: Exception, told: str) -> None:
    """Whoever looks for it in the network would look in the wrong place."""
    with mock.patch("coordinator.models.node_slices.list_slices", side_effect=error):
        assert state_of(loaded(tmp_path, "first"), mock.Mock()) == told
