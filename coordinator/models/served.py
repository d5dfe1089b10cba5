"""Which loaded model does a node serve a slice of, by what it says of itself?

Does not cover: what is loaded (records.py), asking a node for all its slices (node_slices.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from common.errors import ShardmeshError
from coordinator.models.records import LoadedModel, LoadedModels
from protos.shardmesh.v1 import mesh_pb2


class Served(NamedTuple):
    """A slice, by the name that people gave its model."""

    model: str
    rank: int
    ranks: int


def served_by(node: mesh_pb2.Node, models: Iterable[LoadedModel]) -> Served | None:
    """Return what a node serves; None: nothing, or a slice of no model here."""
    for model in models:
        if not 0 <= node.rank < len(model.node_names) or model.node_names[node.rank] != node.name:
            continue
        if model.description.model_identity == node.model_identity:
            return Served(model.name, node.rank, len(model.node_names))
    return None


def models_of(records: LoadedModels) -> list[LoadedModel]:
    """Return what is loaded, to look nodes up in; nothing where a record is damaged, of which `status` tells."""
    try:
        return records.all()
    except ShardmeshError:
        return []
