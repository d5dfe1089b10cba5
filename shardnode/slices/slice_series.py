"""The series of slices on this disk: room for more of them.

Covers: its name. Does not cover: the slice at work (work/work_series.py), sending slices (slice_store.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prometheus_client import CollectorRegistry

from common.program.scraped_series import ScrapedGauge


class SliceSeries:
    """Series of the directory in which slices lie."""

    def __init__(self, registry: CollectorRegistry, directory: Path) -> None:
        free = ScrapedGauge("shardmesh_node_disk_free_bytes", "Room on the disk that slices lie on.", registry=registry)
        free.set_function(lambda: _free_bytes(directory))


def _free_bytes(directory: Path) -> dict[tuple[str, ...], float]:
    try:
        return {(): float(shutil.disk_usage(directory).free)}
    except OSError:  # it is gone; other series are no worse for it
        return {}
