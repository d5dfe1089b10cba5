"""Puts a model onto a mesh from inside this process, step by step as the coordinator program and its process do.

    slice_id = load_here(state, model, [NAME])
    arrivals = bring_here(state, model, description, names)

Covers: the steps without the process, so that a test can break one of them. Does not cover: plans that are measured,
who may load (tests/contract/test_model_service.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from common.weights.slice_description import SliceDescription
from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.membership.reach import owner_access
from coordinator.models.loading import bring
from coordinator.models.records import LoadedModels
from coordinator.models.replacing import NodesInUse, put_to_use
from coordinator.planning.outline import outline
from coordinator.shipping.shipment import Arrival


def load_here(
    state: Path, source: Path, nodes: Sequence[str], name: str = "", in_use: NodesInUse = lambda name: ()
) -> str:  # fmt: skip
    """Load a model onto one node, or several of equal shares of one; return the first node's slice."""
    with closing(open_checkpoint(source)) as checkpoint:
        description = outline(checkpoint).description()
    return bring_here(state, source, description, nodes, name, in_use)[0].slice_id


def bring_here(
    state: Path, source: Path, description: SliceDescription, nodes: Sequence[str], name: str = "",
    in_use: NodesInUse = lambda name: (),
) -> list[Arrival]:  # fmt: skip
    """Load a model that is cut so; return what was sent to each node. Args: description: of the coordinator's slice."""
    models, mesh = LoadedModels(state), owner_access(state)
    models.directory.mkdir(mode=0o700, exist_ok=True)
    with closing(open_checkpoint(source)) as checkpoint:
        model = models.future(name or source.name, source, description, nodes)
        models.plan_ahead(model)
        arrivals = bring(
            checkpoint, model, mesh, report=lambda name, progress: None, report_own=lambda done, total: None
        )
    put_to_use(model, models, mesh, in_use)
    return arrivals
