"""`load`: a model onto the mesh.

Covers: the order of steps, so that an interrupted load leaves the old model at work and goes on later. Does not
cover: sending (shipping/), records (loaded_models.py), taking it off again (unloading.py), flags (cli/load.py).

    plan -> the coordinator's own slice -> slices to nodes -> tokenizer, record -> nodes serve -> other slices go
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, SliceMismatch
from common.weights.slice_description import SliceDescription
from coordinator.loaded_models import TOKENIZER_DIRECTORY, LoadedModel, LoadedModels, slices_of
from coordinator.mesh_access import MeshAccess
from coordinator.node_slices import serve_slice
from coordinator.shipping.shipment import Arrival, Report, ship
from coordinator.slicing.checkpoint import Checkpoint
from coordinator.slicing.splitter import Progress as ReportBytes
from coordinator.slicing.splitter import SplitRequest, ensure_slices
from coordinator.tokenizer.keep import keep_tokenizer
from coordinator.unloading import one_at_a_time, remove_what_nobody_needs

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
    description = request.description
    with one_at_a_time(models.directory):
        directory = models.directory / request.name
        _make_own_slice(checkpoint, description, directory, report_own)
        models.plan_ahead(request.name, description, request.node_names)
        arrivals = ship(
            checkpoint, slices_of(description), request.node_names, mesh.channel, report, verify=request.verify
        )
        _keep_tokenizer(request.model, directory)
        loaded = LoadedModel(
            name=request.name, directory=directory, source=str(request.model.resolve()), description=description,
            node_names=tuple(request.node_names),
        )  # fmt: skip
        models.save(loaded)
        for arrival in arrivals:
            serve_slice(mesh, arrival.name, arrival.slice_id)
        with suppress(InputError):  # another model's damaged record: `models` tells of it
            remove_what_nobody_needs(models, mesh)
    return arrivals


def _make_own_slice(
    checkpoint: Checkpoint, description: SliceDescription, directory: Path, report: ReportBytes
) -> None:  # fmt: skip
    """Have the coordinator's own slice in place; one of another plan or model is replaced."""
    split = SplitRequest(
        plan=description.plan, dtype=description.dtype, tile_bytes=description.tile_bytes, directory=directory,
        with_nodes=False,
    )  # fmt: skip
    try:
        ensure_slices(checkpoint, split, redo=False, progress=report)
    except SliceMismatch:
        ensure_slices(checkpoint, split, redo=True, progress=report)


def _keep_tokenizer(model: Path, directory: Path) -> None:
    building, final = directory / BUILDING, directory / TOKENIZER_DIRECTORY
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    keep_tokenizer(model, building)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(building, final)
