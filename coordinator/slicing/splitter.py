"""Cuts a checkpoint into slices on disk: one directory per rank, and one for the coordinator itself.

Covers: reuse of slices that fit, building in a hidden directory and renaming into place, one builder
at a time, a full disk, a kill at any instant (the next run starts over, never from a half slice).
Does not cover: reading checkpoints (checkpoints/checkpoint.py), where tensors lie (common/weights/slice_format.py),
slices whose matrices have encodings of their own (packed_slices.py).

Peak memory is one source tensor (`o_proj` or `down_proj`, which are cut by column) plus two tiles.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from common.errors import DiskFull, InputError, SliceError
from common.machine.durable_files import is_full, sync_directory
from common.weights.manifest import (
    COORDINATOR_RANK,
    MANIFEST_NAME,
    FileEntry,
    SliceManifest,
    check_belongs,
    read_manifest,
)
from common.weights.slice_format import BLOCK_KINDS, FileLayout, block_file_name
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.slicing.packed_slices import are_there, ensure_packed
from coordinator.slicing.split_request import INCOMPLETE, LOCK, ReportBytes, SplitRequest
from coordinator.slicing.tiles import BlockTiles, TileWriter, coordinator_tile

BUILDING = ".building"


def ensure_slices(checkpoint: Checkpoint, request: SplitRequest, *, redo: bool, progress: ReportBytes) -> bool:
    """Make sure that all slices are on disk; return whether they had to be made.

    Slices that are there and belong are reused. `redo` makes them again in any case.

    Raises: SliceMismatch, SliceCorrupt: what is there is of another kind or damaged, and not `redo`;
    DiskFull: no room (nothing is left behind); CheckpointError: the source cannot be read.
    """
    try:
        request.directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(request.directory / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        is_read_only = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
        if is_read_only and not redo and _are_there(checkpoint, request):
            return False  # nobody can change them here, so no lock is needed
        raise InputError(f"cannot write slices to {request.directory}: {error.strerror}; "
                         "have them elsewhere (generate and split: --save-dir)") from error  # fmt: skip
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # With the lock held nobody builds: what is there was left by a run that was killed, gigabytes perhaps.
        shutil.rmtree(request.directory / BUILDING, ignore_errors=True)
        if request.encodings is not None:
            return ensure_packed(checkpoint, request, redo=redo, progress=progress)
        if not redo and _are_there(checkpoint, request):
            return False
        _build(checkpoint, request, progress)
        return True
    finally:
        os.close(lock)


def _are_there(checkpoint: Checkpoint, request: SplitRequest) -> bool:
    """Tell whether all slices are there. Raises: SliceMismatch, SliceCorrupt: those that are there do not do."""
    if request.encodings is not None:
        return are_there(checkpoint, request)
    is_complete = _are_complete(request)
    if is_complete:
        _check_all_belong(checkpoint, request)
    return is_complete


def _are_complete(request: SplitRequest) -> bool:
    """Tell whether an earlier split ran to its end; after one that did not, nothing there counts."""
    if (request.directory / INCOMPLETE).exists():
        return False
    return any(request.slice_directory(rank).exists() for rank in request.ranks)


def _check_all_belong(checkpoint: Checkpoint, request: SplitRequest) -> None:
    for rank in request.ranks:
        directory = request.slice_directory(rank)
        check_belongs(
            read_manifest(directory), directory,
            model_identity=checkpoint.identity, plan=request.plan, rank=rank, dtype=request.dtype,
        )  # fmt: skip


def _build(checkpoint: Checkpoint, request: SplitRequest, progress: ReportBytes) -> None:
    building = request.directory / BUILDING
    slices = {rank: request.slice_of(checkpoint, rank) for rank in request.ranks}
    layouts = {rank: about.layouts() for rank, about in slices.items()}
    total_bytes = sum(layout.file_bytes for files in layouts.values() for layout in files.values())
    _check_room(request.directory, total_bytes)
    try:
        for rank in request.ranks:
            (building / request.slice_directory(rank).name).mkdir(parents=True)
        entries = _write_files(checkpoint, request, layouts, building, lambda done: progress(done, total_bytes))
        for rank in request.ranks:
            manifest = SliceManifest.of(slices[rank], entries[rank])
            _write_durably(building / request.slice_directory(rank).name / MANIFEST_NAME, manifest)
        _publish(request, building)
    except OSError as error:
        if is_full(error):
            raise DiskFull(
                f"no room left in {request.directory}: the slices need {total_bytes / 1e9:.2f} GB; "
                "free some, or have them elsewhere (generate and split: --save-dir)"
            ) from error
        raise SliceError(f"cannot write slices to {request.directory}: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _check_room(directory: Path, total_bytes: int) -> None:
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < total_bytes:
        raise DiskFull(f"the slices need {total_bytes / 1e9:.2f} GB and {directory} has {free_bytes / 1e9:.2f} GB "
                       "free; free some, or have them elsewhere (generate and split: --save-dir)")  # fmt: skip


def _publish(request: SplitRequest, building: Path) -> None:
    """Rename the new slices into place; a kill in between leaves the INCOMPLETE marker, so all is done again."""
    marker = request.directory / INCOMPLETE
    marker.touch()
    sync_directory(request.directory)
    for old in request.directory.glob("node*") if request.with_nodes else ():
        if old.name[4:].isdigit():
            shutil.rmtree(old)
    shutil.rmtree(request.store_directory, ignore_errors=True)  # of plans that were in the same places
    for rank in request.ranks:
        final = request.slice_directory(rank)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(building / final.name, final)
    sync_directory(request.directory)
    marker.unlink()


def _write_durably(path: Path, manifest: SliceManifest) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(manifest.text())
        file.flush()
        os.fsync(file.fileno())
    sync_directory(path.parent)


def _write_files(
    checkpoint: Checkpoint,
    request: SplitRequest,
    layouts: dict[int, dict[str, FileLayout]],
    building: Path,
    progress: Callable[[int], None],
) -> dict[int, dict[str, FileEntry]]:
    """Write every block file of every rank, layer by layer, so that each source tensor is read once."""
    entries: dict[int, dict[str, FileEntry]] = {rank: {} for rank in request.ranks}
    writer = TileWriter(progress)
    for name, layout in layouts[COORDINATOR_RANK].items():
        directory = building / request.slice_directory(COORDINATOR_RANK).name
        tiles = (coordinator_tile(checkpoint, name, tile) for tile in layout.tiles)
        entries[COORDINATOR_RANK][name] = writer.write(directory / name, layout, tiles)
    for layer in range(checkpoint.spec.layer_count):
        for kind in BLOCK_KINDS if request.with_nodes else ():
            name = block_file_name(layer, kind)
            block = BlockTiles(checkpoint, layer, kind, request.encodings)
            for rank in range(request.plan.world_size):
                rank_layout = layouts[rank].get(name)
                if rank_layout is not None:
                    directory = building / request.slice_directory(rank).name
                    tiles = (block.tile(tile) for tile in rank_layout.tiles)
                    entries[rank][name] = writer.write(directory / name, rank_layout, tiles)
    return entries
