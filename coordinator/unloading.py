"""`unload`: a model off the mesh, its slices off the nodes. Here and not beside `load`, which imports torch.

Covers: which slices nobody needs any more, one change of the mesh's models at a time.
Does not cover: records (loaded_models.py), flags and output (cli/load.py).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.errors import InputError, NodeError, NoSuchNode
from coordinator.loaded_models import LoadedModel, LoadedModels
from coordinator.mesh_access import MeshAccess
from coordinator.node_slices import remove_slice

LOCK_FILE = ".lock"


def unload(model: LoadedModel, models: LoadedModels, mesh: MeshAccess) -> list[str]:
    """Take a model off the mesh; return the nodes that could not be reached and keep their slices."""
    with one_at_a_time(models.directory):
        others = [other for other in models.all() if other.name != model.name]
        missed = remove_slices(model, mesh, kept=held_by(others))
        models.forget(model)
    return missed


def held_by(models: Sequence[LoadedModel]) -> set[tuple[str, str]]:
    """Return who holds which slice for these models."""
    return {
        (name, description.slice_id)
        for model in models
        for name, description in zip(model.node_names, model.slices(), strict=True)
    }


def remove_slices(model: LoadedModel, mesh: MeshAccess, *, kept: set[tuple[str, str]]) -> list[str]:
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
