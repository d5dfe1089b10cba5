"""`load`: a model's files to where they belong, for the coordinator program.

Covers: the order of steps, so that an interrupted load leaves the old model at work and goes on later. Does not
cover: sending (shipping/), the process that does this (load_process.py), what the program does before and after
(records.py, replacing.py), taking it off again (unloading.py).

    plan, written down -> the coordinator's own slice -> slices to nodes -> tokenizer -> nodes serve -> record -> other
    slices go
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from common.errors import SliceCorrupt, SliceMismatch
from common.weights.pack_store import PackStore
from common.weights.packs import STORE_DIRECTORY
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.membership.reach import MeshAccess
from coordinator.models.records import LoadedModel
from coordinator.shipping.shipment import Arrival, Report, ship
from coordinator.slicing.split_request import ReportBytes, SplitRequest
from coordinator.slicing.splitter import ensure_slices
from coordinator.tokenizer.keep import keep_tokenizer

BUILDING = ".building"


def bring(
    checkpoint: Checkpoint, model: LoadedModel, mesh: MeshAccess,
    *, report: Report, report_own: ReportBytes, verify: bool = False,
) -> list[Arrival]:  # fmt: skip
    """Bring a model's files to where they belong, and return what was sent to each node, by rank.

    What has arrived stays, for the next attempt. Raises: DiskFull, NodeError, SliceError, CheckpointError.
    """
    _make_own_slice(checkpoint, model, report_own)
    arrivals = ship(checkpoint, model.slices(), model.node_names, mesh.channel, report, verify=verify)
    _keep_tokenizer(Path(model.source), model)
    return arrivals


def _make_own_slice(checkpoint: Checkpoint, model: LoadedModel, report: ReportBytes) -> None:
    """Have the coordinator's own slice in place; a damaged one is replaced."""
    description = model.description
    split = SplitRequest(
        plan=description.plan, dtype=description.dtype, tile_bytes=description.tile_bytes,
        encodings=description.encodings, directory=model.parts_directory, with_nodes=False,
    )  # fmt: skip
    for other in sorted(model.directory.glob(f"*/{STORE_DIRECTORY}")):  # of another plan: the same tiles
        if other != split.store_directory:
            model.parts_directory.mkdir(exist_ok=True)
            PackStore(split.store_directory).adopt(other)
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
