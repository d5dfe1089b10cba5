"""`load` and `unload`: a model onto the mesh, and off it again.

Covers: the order of steps, so that an interrupted load leaves the old model at work and goes on later. Does not
cover: sending (shipping/), records (loaded_models.py), flags and output (cli/load.py).

    plan -> the coordinator's own slice -> slices to nodes -> tokenizer, record -> nodes serve -> other slices go
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, NodeError, NoSuchNode, SliceMismatch
from common.weights.slice_description import SliceDescription
from coordinator.loaded_models import TOKENIZER_DIRECTORY, LoadedModel, LoadedModels, slices_of
from coordinator.mesh_access import MeshAccess
from coordinator.node_slices import list_slices, remove_slice, serve_slice
from coordinator.shipping.shipment import Arrival, Report, ship
from coordinator.slicing.checkpoint import Checkpoint
from coordinator.slicing.splitter import Progress as ReportBytes
from coordinator.slicing.splitter import SplitRequest, ensure_slices
from coordinator.tokenizer.keep import keep_tokenizer

LOCK_FILE = ".lock"
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
    with _one_at_a_time(models.directory):
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
        _remove_what_nobody_needs(models, mesh)
    return arrivals


def unload(model: LoadedModel, models: LoadedModels, mesh: MeshAccess) -> list[str]:
    """Take a model off the mesh; return the nodes that could not be reached and keep their slices."""
    with _one_at_a_time(models.directory):
        others = [(other.node_names, other.description) for other in models.all() if other.name != model.name]
        missed = _remove_slices(model, mesh, kept=_slices_of(others))
        models.forget(model)
    return missed


def _slices_of(models: Iterable[tuple[Sequence[str], SliceDescription]]) -> set[tuple[str, str]]:
    """Return who holds which slice for these models. Args: models: each one's nodes by rank, and its description."""
    return {
        (name, one.slice_id)
        for names, description in models
        for name, one in zip(names, slices_of(description), strict=True)
    }


def _remove_what_nobody_needs(models: LoadedModels, mesh: MeshAccess) -> None:
    """Have every node that is there remove what neither a loaded model needs nor an attempt that may go on.

    By what lies there and not by what this load replaced: loads that were interrupted may have replaced something too.
    A node that is away keeps what it has until the next load.
    """
    try:
        loaded = [(model.node_names, model.description) for model in models.all()]
    except InputError:  # a damaged record: nobody can tell what its model needs
        return
    needed = _slices_of([*loaded, *models.attempts()])
    for node in mesh.alive():
        try:
            for held in list_slices(mesh, node.name).slices:
                if (node.name, held.slice_id) not in needed:
                    remove_slice(mesh, node.name, held.slice_id)
        except (NoSuchNode, NodeError):
            continue


def _remove_slices(model: LoadedModel, mesh: MeshAccess, *, kept: set[tuple[str, str]]) -> list[str]:
    """Remove a model's slices from its nodes; return those that could not be asked."""
    missed = []
    for name, description in zip(model.node_names, model.slices(), strict=True):
        if (name, description.slice_id) not in kept:
            try:
                remove_slice(mesh, name, description.slice_id)
            except NoSuchNode:  # it was removed from the mesh, and what it still holds is its owner's matter
                continue
            except NodeError:
                missed.append(name)
    return missed


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


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / LOCK_FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(f"cannot write {directory}: {error.strerror}; run as the user that the coordinator runs as"
                         ) from error  # fmt: skip
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError("another load or unload is under way on this mesh; wait for its end") from None
    finally:
        os.close(lock)
