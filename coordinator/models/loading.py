"""`load`: a model onto the mesh.

Covers: the order of steps, so that an interrupted load leaves the old model at work and goes on later. Does not
cover: sending (shipping/), records (models/records.py), taking it off again (unloading.py), flags (cli/load.py).

    plan -> the coordinator's own slice -> slices to nodes -> tokenizer -> nodes serve -> record -> other slices go
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, SliceCorrupt, SliceMismatch
from common.weights.slice_description import SliceDescription
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.membership.reach import MeshAccess
from coordinator.models.node_slices import serve_slice
from coordinator.models.records import LoadedModel, LoadedModels
from coordinator.models.unloading import one_at_a_time, remove_what_nobody_needs
from coordinator.shipping.shipment import Arrival, Report, ship
from coordinator.slicing.splitter import ReportBytes, SplitRequest, ensure_slices
from coordinator.tokenizer.keep import keep_tokenizer

BUILDING = ".building"


@dataclass(frozen=True, kw_only=True)
class LoadRequest:
    """What is loaded, onto whom."""

    model: Path
    name: str
    description: SliceDescription
    """Of the coordinator's own slice."""
    node_names: Sequence[str]
    """By rank."""
    verify: bool = False


def load(
    checkpoint: Checkpoint, request: LoadRequest, models: LoadedModels, mesh: MeshAccess,
    *, report: Report, report_own: ReportBytes,
) -> list[Arrival]:  # fmt: skip
    """Put a model onto the mesh and return what was sent to each node.

    Raises: DiskFull, NodeError, SliceError, CheckpointError: the model that was loaded before works on, and what has
    arrived of the new one stays, for the next attempt.
    """
    model = LoadedModel(
        name=request.name, directory=models.directory / request.name, source=str(request.model.resolve()),
        description=request.description, node_names=tuple(request.node_names),
    )  # fmt: skip
    with one_at_a_time(models.directory):
        models.plan_ahead(model)
        _make_own_slice(checkpoint, model, report_own)
        arrivals = ship(checkpoint, model.slices(), model.node_names, mesh.channel, report, verify=request.verify)
        _keep_tokenizer(request.model, model)
        for arrival in arrivals:
            serve_slice(mesh, arrival.name, arrival.slice_id)
        models.save(model)
        with suppress(InputError):  # another model's damaged record: `models` tells of it
            remove_what_nobody_needs(models, mesh)
    return arrivals


def _make_own_slice(checkpoint: Checkpoint, model: LoadedModel, report: ReportBytes) -> None:
    """Have the coordinator's own slice in place; a damaged one is replaced."""
    description = model.description
    split = SplitRequest(
        plan=description.plan, dtype=description.dtype, tile_bytes=description.tile_bytes,
        directory=model.parts_directory, with_nodes=False,
    )  # fmt: skip
    try:
        ensure_slices(checkpoint, split, redo=False, progress=report)
    except (SliceMismatch, SliceCorrupt):
        ensure_slices(checkpoint, split, redo=True, progress=report)


def _keep_tokenizer(source: Path, model: LoadedModel) -> None:
    building, final = model.parts_directory / BUILDING, model.tokenizer_directory
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    keep_tokenizer(source, building)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(building, final)
