"""`unload`: a model off the mesh, its slices off the nodes. Here and not beside `load`, which imports more.

Covers: which slices nobody needs any more, one change of the mesh's models at a time.
Does not cover: records (models/records.py), flags and output (cli/load.py).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import InputError, NodeError, NoSuchNode
from common.machine.state_directory import check_own
from coordinator.membership.reach import MeshAccess, is_alive
from coordinator.models.node_slices import list_slices, remove_kept_tiles, remove_slice
from coordinator.models.records import LoadedModels

LOCK_FILE = ".lock"


def unload(name: str, models: LoadedModels, mesh: MeshAccess) -> list[str]:
    """Take a model off the mesh, or what an interrupted load has left; return its nodes that could not be asked.

    Its record goes first: who stops half way has a model less, and slices that the next load or unload removes.
    Raises: ModelNotFound; InputError: another command is at work, or a record is damaged; NodeLost: no coordinator
    answers.
    """
    with one_at_a_time(models.directory):
        mesh.nodes()  # without a coordinator nothing is forgotten
        named = models.named(name)
        models.forget(name)
        missed = remove_what_nobody_needs(models, mesh)
    return sorted({node for model in named for node in model.node_names}.intersection(missed))


def remove_what_nobody_needs(models: LoadedModels, mesh: MeshAccess) -> list[str]:
    """Have every node remove what neither a loaded model needs nor an attempt that may go on.

    By what lies there and not by what a command has replaced: those that were interrupted may have replaced something
    too. Returns the members that could not be asked; they keep what they have until the next time.
    Raises: InputError: a damaged record: nobody can tell what its model needs.
    """
    models_there = (*models.all(), *models.attempts())
    needed = {
        (node, one.slice_id)
        for model in models_there
        for node, one in zip(model.node_names, model.slices(), strict=True)
    }
    identities = {model.description.model_identity for model in models_there}
    return [
        node.name for node in mesh.nodes() if not (is_alive(node) and _keeps_only(needed, identities, mesh, node.name))
    ]


def _keeps_only(needed: set[tuple[str, str]], models: set[str], mesh: MeshAccess, name: str) -> bool:
    """Have a node remove what nobody needs; tell whether it could be asked.

    Args: needed: slices, by node; models: those of which some are needed: their tiles may stay for another plan.
    """
    try:
        for held in list_slices(mesh, name).slices:
            if (name, held.slice_id) not in needed:
                remove_slice(mesh, name, held.slice_id, keep_tiles=bool(models))
        for kept in list_slices(mesh, name, with_kept_tiles=True).kept_tiles:
            if kept.model_identity not in models:
                remove_kept_tiles(mesh, name, kept.model_identity)
    except NoSuchNode:  # it was removed from the mesh, and what it still holds is its owner's matter
        return True
    except NodeError:
        return False
    return True


@contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Lock a mesh's models. Raises: InputError: another command has them, or they are another user's."""
    check_own(directory.parent)
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
