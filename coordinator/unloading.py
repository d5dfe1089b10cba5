"""`unload`: a model off the mesh, its slices off the nodes. Here and not beside `load`, which imports torch.

Covers: which slices nobody needs any more, one change of the mesh's models at a time.
Does not cover: records (loaded_models.py), flags and output (cli/load.py).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.errors import InputError, NodeError, NoSuchNode
from common.weights.slice_description import SliceDescription
from coordinator.loaded_models import LoadedModel, LoadedModels, slices_of
from coordinator.mesh_access import MeshAccess, is_alive
from coordinator.node_slices import list_slices, remove_slice

LOCK_FILE = ".lock"


def unload(model: LoadedModel, models: LoadedModels, mesh: MeshAccess) -> list[str]:
    """Take a model off the mesh; return the nodes that could not be reached and keep their slices."""
    with one_at_a_time(models.directory):
        others = [(other.node_names, other.description) for other in models.all() if other.name != model.name]
        missed = _remove_slices(model, mesh, kept=_slices_of(others))
        models.forget(model)
    return missed


def remove_what_nobody_needs(models: LoadedModels, mesh: MeshAccess) -> None:
    """Have every node that is there remove what neither a loaded model needs nor an attempt that may go on.

    By what lies there and not by what the last load replaced: loads that were interrupted may have replaced something
    too. A node that is away keeps what it has until the next load.
    """
    try:
        loaded = [(model.node_names, model.description) for model in models.all()]
    except InputError:  # a damaged record: nobody can tell what its model needs
        return
    needed = _slices_of([*loaded, *models.attempts()])
    for node in filter(is_alive, mesh.nodes()):
        try:
            for held in list_slices(mesh, node.name).slices:
                if (node.name, held.slice_id) not in needed:
                    remove_slice(mesh, node.name, held.slice_id)
        except (NoSuchNode, NodeError):
            continue


def _slices_of(models: Iterable[tuple[Sequence[str], SliceDescription]]) -> set[tuple[str, str]]:
    """Return who holds which slice for these models. Args: models: each one's nodes by rank, and its description."""
    return {
        (name, one.slice_id)
        for names, description in models
        for name, one in zip(names, slices_of(description), strict=True)
    }


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


@contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Lock a mesh's models. Raises: InputError: another command has them."""
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
