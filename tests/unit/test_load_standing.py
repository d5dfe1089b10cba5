"""Does what is said of a load fit how it stands, beside a model that is there, one that is not, and none?"""

from __future__ import annotations

from unittest import mock

import pytest

from coordinator.cli.load_standing import Loads, not_listed, standing
from coordinator.models.records import LoadedModel
from protos.shardmesh.v1.models_pb2 import LoadStanding


def said(*, is_loaded: bool, load: LoadStanding | None) -> str:
    """Return what is said beside a model."""
    model, mesh = mock.create_autospec(LoadedModel, instance=True), mock.Mock()
    model.name, model.is_loaded = "small", is_loaded
    loads: Loads = {} if load is None else {"small": load}
    with mock.patch("coordinator.models.node_slices.state_of", return_value="STATE"):
        return standing(model, mesh, loads)


@pytest.mark.parametrize(
    ("load", "beside_loaded", "beside_begun"),
    [
        (None, "STATE", "STATE"),
        (LoadStanding(), "STATE", "STATE"),
        (LoadStanding(is_under_way=True), "STATE; is being loaded", "is being loaded"),
        (
            LoadStanding(is_under_way=True, arrived_bytes=30, total_bytes=90),
            "STATE; is being loaded, 33 % is there", "is being loaded, 33 % is there",
        ),
        (
            LoadStanding(failure="attic is gone"),
            "STATE; the last load has ended: attic is gone", "the last load has ended: attic is gone",
        ),
    ],
)  # fmt: skip
def test_a_model_that_is_there_keeps_its_state_beside_its_load(
    load: LoadStanding | None, beside_loaded: str, beside_begun: str
) -> None:
    """One that is not has only how its load stands, which is not interrupted while it goes on."""
    assert said(is_loaded=True, load=load) == beside_loaded
    assert said(is_loaded=False, load=load) == beside_begun


def test_a_load_without_a_plan_is_told_all_the_same() -> None:
    """Its model is in no list: of one that goes on, and of one that came to nothing; one that went well is listed."""
    loads = {"a": LoadStanding(is_under_way=True), "b": LoadStanding(failure="no such path"), "c": LoadStanding()}
    assert not_listed(loads, []) == {"a": "is being loaded", "b": "the last load has ended: no such path"}
    assert not_listed(loads, ["a", "b", "c"]) == {}
