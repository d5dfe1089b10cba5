"""How do the loads stand of the models that are listed: what a person is told beside each model.

Covers: the coordinator's answer in words. Does not cover: whether a model could answer (models/node_slices.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import ShardmeshError

if TYPE_CHECKING:  # they import gRPC, and --help must not wait for that
    from coordinator.membership.reach import MeshAccess
    from coordinator.models.records import LoadedModel
    from protos.shardmesh.v1 import models_pb2

Loads = Mapping[str, "models_pb2.LoadStanding"]
"""By the model's name."""


def loads_of(state_directory: Path) -> Loads:
    """Return how the last load of each name stands; nothing where nobody can tell."""
    from coordinator.membership.owner_client import OwnerClient

    try:
        with OwnerClient(state_directory) as coordinator:
            return {load.name: load for load in coordinator.loads()}
    except ShardmeshError:
        return {}


def standing(model: LoadedModel, mesh: MeshAccess, loads: Loads) -> str:
    """Return whether a model could answer now, and how its load stands if that matters."""
    from coordinator.models.node_slices import state_of

    load = loads.get(model.name)
    if load is None or not (load.is_under_way or load.failure):
        return state_of(model, mesh)
    words = in_words(load)
    return f"{state_of(model, mesh)}; {words}" if model.is_loaded else words


def could_answer(how: str) -> bool:
    """Tell whether a model could answer now, of what `standing` says."""
    from coordinator.models.node_slices import READY

    return how.partition(";")[0] == READY


def not_listed(loads: Loads, listed: Collection[str]) -> dict[str, str]:
    """Return by name how loads stand that have no plan, or none yet, so that their models are not listed."""
    return {
        name: in_words(load)
        for name, load in loads.items()
        if (load.is_under_way or load.failure) and name not in listed
    }


def in_words(load: models_pb2.LoadStanding) -> str:
    """Return how a load stands."""
    if not load.is_under_way:
        return f"the last load has ended: {load.failure}"
    share = f", {100 * load.arrived_bytes // load.total_bytes} % is there" if load.total_bytes else ""
    return f"is being loaded{share}"
