"""Which slice this node serves, from its start on and when it is told to change.

Covers: the slice of --slice-dir, or the one that was served last; changing it, going back when the new one cannot be
opened. Does not cover: a slice at work (work/slice_at_work.py), slices on disk (slice_store.py).
Threads: any; one change at a time. Sessions of the slice before end with an error that says why.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from common.compute.device_speeds import SCRATCH_BYTES
from common.errors import ResourceError, ShardmeshError, SliceCorrupt, SliceError, SliceMismatch
from common.machine.operating_system import give_free_heap_back, own_rss_bytes
from common.program.logs import entry
from common.weights.manifest import read_manifest
from common.weights.tile_places import tile_places
from shardnode.config import NodeConfig
from shardnode.slices.slice_offer import Offer
from shardnode.slices.slice_store import SliceStore
from shardnode.work.node_memory import told_budget
from shardnode.work.slice_at_work import ShardNode
from shardnode.work.work_series import WorkSeries

LARGE_FILE_BYTES = 8 << 20

log = logging.getLogger(__name__)


class Serving:
    """The slice at work, if any. Close it."""

    def __init__(
        self, config: NodeConfig, store: SliceStore | None = None, opened: ShardNode | None = None,
        series: WorkSeries | None = None,
    ) -> None:  # fmt: skip
        """Open the slice of --slice-dir, or the one that `store` served last.

        Args: opened: the slice of --slice-dir, by whoever has opened it; series: the process's.
        Raises: SliceError, ResourceError: that of --slice-dir cannot be served. Another one that cannot is a trouble
        that the mesh is told, since it can be sent again.
        """
        self._config, self._store = config, store
        self._series = series or WorkSeries()
        self.program_bytes = own_rss_bytes()
        """Of this process before it has a slice."""
        self.budget_bytes = told_budget(config, self.program_bytes)
        """The most memory that it was allowed, as counted at its start; 0 without a budget."""
        self.trouble = ""
        """Why the slice that should be served is not; empty when all is well."""
        self._changing = threading.Lock()
        self._node = opened
        if opened is not None:
            return
        if config.slice_directory is not None:
            self._node = self._open(config.slice_directory)
        elif store is not None:
            try:
                if slice_id := store.served():
                    self._node = self._open(store.whole(slice_id))
            except (SliceError, ResourceError) as error:
                self.trouble = str(error)
                log.error("%s", entry("slice of before is not served", reason=error.reason, error=error))

    @property
    def node(self) -> ShardNode | None:
        """The slice at work."""
        return self._node

    @property
    def store(self) -> SliceStore:
        """The slices on this node's disk. Raises: SliceMismatch: it keeps none."""
        if self._store is None:
            raise SliceMismatch("this node serves the directory that it was told at start (--slice-dir) and takes no "
                                "slices; start it without, as a member of a mesh")  # fmt: skip
        return self._store

    @property
    def slice_id(self) -> str:
        """Of the slice at work; empty for none."""
        node = self._node
        return "" if node is None else node.manifest.slice_id

    def served(self) -> dict[str, object]:
        """Return what is at work, for an entry of the log; nothing where that is none."""
        node = self._node
        if node is None:
            return {}
        manifest = node.manifest
        return {"slice": manifest.slice_id[:12], "rank": manifest.rank, "ranks": manifest.plan.world_size}

    def large_files(self) -> list[Path]:
        """Return the files of the slice at work, if they are enough to measure a disk with."""
        node = self._node
        if node is None or node.config.slice_directory is None:
            return []
        directory = node.config.slice_directory
        try:
            places = tile_places(directory, read_manifest(directory))  # packs may have moved since it was opened
        except SliceError:
            return []
        files = sorted({tile.path for tiles in places.values() for tile in tiles})
        large = {path: size for path in files if (size := path.stat().st_size) >= LARGE_FILE_BYTES}
        return list(large) if sum(large.values()) >= SCRATCH_BYTES else []

    def current(self) -> ShardNode:
        """Return the slice at work. Raises: SliceMismatch: there is none."""
        node = self._node
        if node is None:
            raise SliceMismatch(self.trouble or "this node holds no slice yet; send it one with `coordinator-cli load`")
        return node

    def serve(self, slice_id: str) -> None:
        """Serve another slice from now on.

        Raises: SliceError, ResourceError: it cannot be; the old one is served then.
        """
        with self._changing:
            directory = self.store.whole(slice_id)
            if self.slice_id != slice_id:
                self._change(directory)
                give_free_heap_back()  # what it took to receive the slice
                log.info("%s", entry("slice is served", **self.served()))
            with suppress(SliceCorrupt):
                if self.store.served() == slice_id:
                    self.trouble = ""
                    return
            self.store.set_served(slice_id)
            self.trouble = ""

    def offer(self, description: bytes, *, verify: bool) -> Offer:
        """Make ready for a slice (slice_store.py). One that is verified again is not served meanwhile."""
        with self._changing:
            offer = self.store.offer(description, verify=verify)
            if not offer.is_whole and self.slice_id == offer.slice_id:
                self._stop()
            return offer

    def remove(self, slice_id: str, *, keep_tiles: bool = False) -> None:
        """Remove a slice, served or not. Args: keep_tiles: as SliceStore's."""
        with self._changing:
            if slice_id and self.slice_id == slice_id:
                self._stop()
            self.store.remove(slice_id, keep_tiles=keep_tiles)

    def close(self) -> None:
        """Serve nothing any more. May be called twice."""
        with self._changing:
            self._stop()

    def _change(self, directory: Path) -> None:
        """Close the old slice before the new one is opened: memory is there for one of them."""
        before = self._node.config.slice_directory if self._node is not None else None
        self._stop()
        try:
            self._node = self._open(directory)
        except ShardmeshError:
            if before is not None:
                self._node = self._open(before)
            raise

    def _stop(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            node.close()

    def _open(self, directory: Path) -> ShardNode:
        return ShardNode(replace(self._config, slice_directory=directory), series=self._series)
