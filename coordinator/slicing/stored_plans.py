"""Which plans of a model lie in a directory, how much of it is each one's own, and how does one go?

Covers: manifests of slices whose tiles lie in packs; what packs they need. Does not cover: making them
(packed_slices.py), slices of one dtype, of which there is one plan only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, SliceError
from common.weights.manifest import MANIFEST_NAME, SliceManifest, read_manifest
from common.weights.pack_store import PackStore, Place
from common.weights.packs import STORE_DIRECTORY
from common.weights.repacking import repack, tell_manifest
from coordinator.slicing.split_request import LOCK, OWN_SLICE


@dataclass(frozen=True, kw_only=True)
class StoredPlan:
    """One plan that lies in a directory, with those of its slices that can be read."""

    name: str
    slices: tuple[SliceManifest, ...]

    @property
    def world_size(self) -> int:
        """How many nodes it is for; 0: none of its slices can be read."""
        return self.slices[0].plan.world_size if self.slices else 0

    @property
    def strategy(self) -> str:
        """How it is shared out, as it was typed."""
        return self.slices[0].plan.strategy if self.slices else ""

    @property
    def dtype(self) -> str:
        """What its weights are stored as."""
        return self.slices[0].dtype if self.slices else ""

    @property
    def places(self) -> dict[Place, int]:
        """Bytes of its tiles, by where they lie."""
        return {
            (found.pack, found.offset): tile.byte_count
            for manifest in self.slices
            for file, layout in manifest.layouts().items()
            for tile, found in zip(layout.tiles, manifest.tiles[file], strict=True)
        }


def stored_plans(directory: Path) -> list[StoredPlan]:
    """Return the plans in a directory, by name."""
    manifests: dict[str, list[SliceManifest]] = {}
    for place in rank_directories(directory):
        for path in sorted(place.glob(f"*/{MANIFEST_NAME}")):
            found = manifests.setdefault(path.parent.name, [])
            try:
                found.append(read_manifest(path.parent))
            except SliceError:  # the next run for this plan writes it again
                continue
    return [StoredPlan(name=name, slices=tuple(found)) for name, found in sorted(manifests.items())]


def needed_places(directory: Path) -> set[Place]:
    """Return where the tiles lie that any plan needs."""
    return {place for plan in stored_plans(directory) for place in plan.places}


def largest_plan_bytes(directory: Path) -> int:
    """Return the bytes of the tiles of the largest plan there."""
    return max((sum(plan.places.values()) for plan in stored_plans(directory)), default=0)


def remove_plans(directory: Path, but: Collection[str]) -> None:
    """Remove the manifests of plans. Args: but: of these they stay."""
    for place in rank_directories(directory):
        for path in place.glob(f"*/{MANIFEST_NAME}"):
            if path.parent.name not in but:
                path.unlink()
                shutil.rmtree(path.parent)
        if not any(place.iterdir()):
            place.rmdir()


def remove_plan(directory: Path, name: str) -> int:
    """Remove a plan, and the tiles that no other one needs; return the bytes that are free now.

    Raises: InputError: there is no such plan, or the directory cannot be written.
    """
    names = [plan.name for plan in stored_plans(directory)]
    if name not in names:
        there = f"there are: {', '.join(names)}" if names else "there is none"
        raise InputError(f"{directory} has no plan '{name[:60]}'; {there}")
    store = PackStore(directory / STORE_DIRECTORY)
    try:
        lock = os.open(directory / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"cannot write {directory}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before_bytes = store.total_bytes
        remove_plans(directory, [other for other in names if other != name])
        drop_unneeded(directory, 0)
        _repack(directory, store)
        return before_bytes - store.total_bytes
    finally:
        os.close(lock)


def slices_in_the_way(directory: Path) -> list[Path]:
    """Return the directories of slices of one dtype, which are called as those of plans are."""
    return [place for place in rank_directories(directory) if (place / MANIFEST_NAME).exists()]


def drop_unneeded(directory: Path, keep_bytes: int) -> int:
    """Remove packs that no plan needs until no more than `keep_bytes` are left of such; return the bytes freed."""
    return PackStore(directory / STORE_DIRECTORY).drop(needed_places(directory), keep_bytes)


def _repack(directory: Path, store: PackStore) -> None:
    """Have what plans need moved out of packs that have other tiles too, and those packs go."""
    if moved := repack(store, needed_places(directory), 0, most_copied_bytes=shutil.disk_usage(directory).free):
        for place in rank_directories(directory):
            for path in sorted(place.glob(f"*/{MANIFEST_NAME}")):
                with suppress(SliceError):
                    tell_manifest(path.parent, moved, store, is_private=False)
        drop_unneeded(directory, 0)


def rank_directories(directory: Path) -> list[Path]:
    """Return where slices of ranks are, of whatever format."""
    nodes = [path for path in directory.glob("node*") if path.name[4:].isdigit()]
    return [path for path in (*sorted(nodes), directory / OWN_SLICE) if path.is_dir()]
