"""Slices whose tiles lie in packs that all plans share: a plan more needs only the tiles that no other one has.

Covers: plans beside each other, which tiles are lacking, writing those, the manifests, a kill at any instant (whole
packs stay, and the next run goes on from them), a full disk, slices of one dtype that are in the way.
Does not cover: who may build (splitter.py), bytes of packs (pack_writer.py), plans that are listed and removed
(stored_plans.py).
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack

from common.errors import DiskFull, ShardmeshError, SliceError, SliceMismatch
from common.machine.durable_files import is_full, replace_readable, sync_directory
from common.program.sizes import format_size
from common.weights.manifest import COORDINATOR_RANK, MANIFEST_NAME, SliceManifest, check_belongs, read_manifest
from common.weights.pack_store import PackStore, found_in
from common.weights.packs import SliceTile, StoredTile, slice_tiles
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import BLOCK_KINDS, block_file_name
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.slicing.pack_writer import SlicePacks
from coordinator.slicing.split_request import INCOMPLETE, ReportBytes, SplitRequest
from coordinator.slicing.stored_plans import (
    drop_unneeded,
    largest_plan_bytes,
    needed_places,
    rank_directories,
    remove_plans,
    slices_in_the_way,
)
from coordinator.slicing.tiles import BlockTiles, TilePacker, TileTensors, coordinator_tile


def are_there(checkpoint: Checkpoint, request: SplitRequest) -> bool:
    """Tell whether every slice of the plan is there. Raises: SliceMismatch: of another model, or another format."""
    for rank in request.ranks:
        directory = request.slice_directory(rank)
        try:
            manifest = read_manifest(directory)
        except SliceMismatch:
            raise
        except SliceError:  # what is lacking is written, and no more
            return False
        check_belongs(
            manifest, directory, model_identity=checkpoint.identity, plan=request.plan, rank=rank, dtype=request.dtype
        )
    return True


def ensure_packed(checkpoint: Checkpoint, request: SplitRequest, *, redo: bool, progress: ReportBytes) -> bool:
    """Make sure that all slices of a plan are there; return whether anything had to be written. With the lock held.

    Raises: as splitter.py's `ensure_slices`.
    """
    store = PackStore(request.store_directory)
    was_killed = store.has_parts
    if was_killed:
        store.clean()
    if not redo and are_there(checkpoint, request):
        if was_killed:  # perhaps gigabytes, of slicing again
            drop_unneeded(request.directory, largest_plan_bytes(request.directory))
        return False
    _end_of_before(request)
    if not redo and (old := slices_in_the_way(request.directory)):
        manifest = read_manifest(old[0])
        check_belongs(
            manifest, old[0], model_identity=checkpoint.identity, plan=request.plan, rank=manifest.rank,
            dtype=request.dtype,
        )  # fmt: skip
    store.clean()
    slices = {rank: request.slice_of(checkpoint, rank) for rank in request.ranks}
    try:
        _write(checkpoint, request, store, _Wanted(slices, {} if redo else store.tiles()), progress, redo=redo)
    except OSError as error:
        if is_full(error):
            raise DiskFull(
                f"no room left in {request.directory}: free some, or have the slices elsewhere (generate and split: "
                "--save-dir)"
            ) from error
        raise SliceError(f"cannot write slices to {request.directory}: {error}") from error
    return True


def _end_of_before(request: SplitRequest) -> None:
    """Have go what is left of slices that were being replaced when a run was killed."""
    marker = request.directory / INCOMPLETE
    if marker.exists():
        for directory in rank_directories(request.directory):
            shutil.rmtree(directory)
        marker.unlink()


class _Wanted:
    """The slices of a plan, and what is there of them."""

    def __init__(self, slices: dict[int, SliceDescription], there: dict[str, StoredTile]) -> None:
        self.slices = slices
        self.tiles = {rank: slice_tiles(about) for rank, about in slices.items()}
        self.there = there

    def lacking(self, rank: int) -> list[SliceTile]:
        return [tile for tile in self.tiles[rank] if tile.key not in self.there]


def _write(
    checkpoint: Checkpoint, request: SplitRequest, store: PackStore, wanted: _Wanted, progress: ReportBytes, *,
    redo: bool,
) -> None:  # fmt: skip
    """Write the packs that are lacking, then the manifests."""
    done = [0]

    def written(byte_count: int) -> None:
        done[0] += byte_count
        progress(done[0], total_bytes)

    packs = {rank: SlicePacks(store, checkpoint.identity, wanted.lacking(rank), written) for rank in request.ranks}
    total_bytes = sum(one.total_bytes for one in packs.values())
    _make_room(request, store, wanted, total_bytes)
    try:
        with ExitStack() as closing:
            for one in packs.values():
                closing.callback(one.close)
            packer = TilePacker()
            for rank, tile, tensors in _read_blocks(checkpoint, request, wanted):
                packs[rank].write(tile, tensors, packer)
                del tensors  # of a block whose matrix goes before the next one's is read
    except (OSError, ShardmeshError):  # after a kill or an interruption the next run goes on from what is there
        for name in (name for one in packs.values() for name in one.written):
            store.remove(name)
        raise
    new = {name for one in packs.values() for name in one.written}
    _publish(request, store, wanted, new if redo else None)


def _read_blocks(
    checkpoint: Checkpoint, request: SplitRequest, wanted: _Wanted
) -> Iterator[tuple[int, SliceTile, TileTensors]]:
    """Yield rank, tile and tensors of all that is lacking; each source tensor is read once, if at all."""
    lacking = {rank: deque(wanted.lacking(rank)) for rank in request.ranks}
    own = lacking[COORDINATOR_RANK]
    while own:
        tile = own.popleft()
        yield COORDINATOR_RANK, tile, coordinator_tile(checkpoint, tile.file, tile.layout)
    for layer in range(checkpoint.spec.layer_count):
        for kind in BLOCK_KINDS:
            name = block_file_name(layer, kind)
            found: list[tuple[int, SliceTile]] = []
            for rank, tiles in lacking.items():
                while tiles and tiles[0].file == name:
                    found.append((rank, tiles.popleft()))
            if found:
                block = BlockTiles(checkpoint, layer, kind, request.encodings)
                yield from ((rank, tile, block.tile(tile.layout)) for rank, tile in found)
                del block


def _make_room(request: SplitRequest, store: PackStore, wanted: _Wanted, total_bytes: int) -> None:
    """Have packs go that no plan needs, if room is wanted. Raises: DiskFull: there is none."""
    free_bytes = shutil.disk_usage(request.directory).free
    if free_bytes < total_bytes:
        keys = {tile.key for tiles in wanted.tiles.values() for tile in tiles}
        taken = {(tile.pack, tile.offset) for key, tile in wanted.there.items() if key in keys}
        store.make_room(needed_places(request.directory) | taken, total_bytes - free_bytes)
        free_bytes = shutil.disk_usage(request.directory).free
    if free_bytes < total_bytes:
        raise DiskFull(f"the slices need {format_size(total_bytes)} more and {request.directory} has "
                       f"{format_size(free_bytes)} free; free some, or have them elsewhere (generate and split: "
                       "--save-dir)")  # fmt: skip


def _publish(request: SplitRequest, store: PackStore, wanted: _Wanted, only: set[str] | None) -> None:
    """Write the manifests. Args: only: the packs to take tiles from, where all was made again: others go."""
    found = found_in(pack for pack in store.packs() if only is None or pack.name in only)
    if slices_in_the_way(request.directory):
        (request.directory / INCOMPLETE).touch()
        sync_directory(request.directory)
        _end_of_before(request)
    if only is not None:
        remove_plans(request.directory, [])
    for rank, about in wanted.slices.items():
        manifest = SliceManifest.of_found(about, wanted.tiles[rank], found)
        directory = request.slice_directory(rank)
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob(f".{MANIFEST_NAME}-*"):  # of a run that was killed right before it got its name
            left.unlink()
        replace_readable(directory / MANIFEST_NAME, manifest.text().encode())
    drop_unneeded(request.directory, 0 if only is not None else largest_plan_bytes(request.directory))
