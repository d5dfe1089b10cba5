"""The series of slices on this disk: what packs of tiles take, what of it is kept, room for more.

Covers: their names. Does not cover: the slice at work (work/work_series.py), sending slices (slice_store.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prometheus_client import CollectorRegistry

from common.program.scraped_series import ScrapedGauge
from shardnode.slices.slice_store import SliceStore


class SliceSeries:
    """Series of the directory in which slices lie."""

    def __init__(self, registry: CollectorRegistry, directory: Path) -> None:
        free = ScrapedGauge("shardmesh_node_disk_free_bytes", "Room on the disk that slices lie on.", registry=registry)
        free.set_function(lambda: _free_bytes(directory))
        self._packs = ScrapedGauge(
            "shardmesh_node_packs_bytes", "Weights on disk in packs that slices share, kept ones included.",
            registry=registry,
        )  # fmt: skip
        self._kept = ScrapedGauge(
            "shardmesh_node_kept_bytes", "Weights in packs that no slice needs, for another plan of their model.",
            registry=registry,
        )  # fmt: skip

    def follow(self, store: SliceStore) -> None:
        """Take the bytes of packs from here; before, there are none."""
        self._packs.set_function(lambda: {(): float(store.pack_bytes)})
        self._kept.set_function(lambda: {(): float(store.kept_bytes)})


def _free_bytes(directory: Path) -> dict[tuple[str, ...], float]:
    try:
        return {(): float(shutil.disk_usage(directory).free)}
    except OSError:  # it is gone; other series are no worse for it
        return {}
