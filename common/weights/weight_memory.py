"""What the weights of one slice may take in memory, and how they are read: options, checked when they are made.

Covers: --memory-window, --window-bytes, the page cache, reads in flight. Does not cover: sharing a machine's budget
out (coordinator/local/shares.py, shardnode/work/node_memory.py), which tiles stay (pinning.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import InputError
from common.machine.direct_io import BLOCK_BYTES

PAGE_CACHE_CHOICES = ("auto", "use", "bypass")
DEFAULT_MEMORY_WINDOW = 2
SPARE_TILES = 2
"""Beside those being read: one that is computed, one that waits for it."""
MAX_READS_IN_FLIGHT = 64
MAX_READ_TIMEOUT_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class WeightMemory:
    """Memory for weights, and reading them."""

    memory_window: int | None = None
    """Room for this many of the largest blocks; 0 keeps everything in memory. None: 2, or under a budget the tiles that
    keep the disk busy, so that more can stay."""
    window_bytes: int | None = None
    """The window in bytes, instead of memory_window; two neighbouring tiles are the least."""
    budget_bytes: int | None = None
    """Most bytes of window and resident tiles together; None: the window and nothing else."""
    page_cache: str = "auto"
    """Whether what is read may stay in the system's page cache: auto, use or bypass."""
    reads_in_flight: int = 0
    """Reads asked of the disk at once; 0: as measured."""
    read_bytes: int = 0
    """Bytes of one read; 0: as measured."""
    read_timeout_seconds: float = 60.0
    """How long a block may wait for the disk before the request fails."""

    def __post_init__(self) -> None:
        if self.memory_window is not None and (self.memory_window < 0 or self.memory_window == 1):
            raise InputError(
                f"--memory-window is {self.memory_window}; use 2 or more, or 0 to keep all weights in memory"
            )
        if self.page_cache not in PAGE_CACHE_CHOICES:
            raise InputError(f"--page-cache is '{self.page_cache}'; use {', '.join(PAGE_CACHE_CHOICES)}")
        if not 0 <= self.reads_in_flight <= MAX_READS_IN_FLIGHT:
            raise InputError(f"--reads-in-flight is {self.reads_in_flight}; use 1 to {MAX_READS_IN_FLIGHT}, or 0 to "
                             "have it measured")  # fmt: skip
        if self.read_bytes < 0 or self.read_bytes % BLOCK_BYTES:
            raise InputError(f"--read-bytes is {self.read_bytes}; it must be a multiple of {BLOCK_BYTES}")
        if not 0 < self.read_timeout_seconds <= MAX_READ_TIMEOUT_SECONDS:
            raise InputError(f"--read-timeout-seconds is {self.read_timeout_seconds}; it must be above 0 and at most "
                             f"{MAX_READ_TIMEOUT_SECONDS}")  # fmt: skip

    def wanted_window_bytes(self, *, block_bytes: int, tile_bytes: int, reads_in_flight: int) -> int:
        """Return the window for blocks and tiles of at most these sizes; 0 to keep everything."""
        if self.window_bytes is not None:
            return self.window_bytes
        if self.memory_window is not None:
            return self.memory_window * block_bytes
        if self.budget_bytes is not None:
            return min(DEFAULT_MEMORY_WINDOW * block_bytes, (reads_in_flight + SPARE_TILES) * tile_bytes)
        return DEFAULT_MEMORY_WINDOW * block_bytes
