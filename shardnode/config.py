"""What a shard node is told at start: a frozen, checked set of values; nothing is read from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError

DEFAULT_KV_BUDGET_BYTES = 1 << 30
MAX_READ_TIMEOUT_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """One shard node."""

    slice_directory: Path
    """Directory with manifest.json and block files."""
    listen: str
    """`unix:/path`, or `host:port`; port 0 lets the system choose."""
    memory_window: int = 2
    """Room for this many of the largest blocks; 0 keeps everything in memory."""
    kv_budget_bytes: int = DEFAULT_KV_BUDGET_BYTES
    """Most bytes of keys and values, all sequences together."""
    thread_count: int = 0
    """Threads that compute; 0 takes one per processor that this process may use."""
    use_gpu: bool = False
    """Compute on CUDA."""
    metrics_port: int | None = None
    """Port of the Prometheus page; none without it."""
    insecure: bool = False
    """Listen without TLS on an address that other devices reach."""
    read_timeout_seconds: float = 60.0
    """How long a block may wait for the disk before the request fails."""

    def __post_init__(self) -> None:
        if self.memory_window < 0 or self.memory_window == 1:
            raise InputError(
                f"--memory-window is {self.memory_window}; use 2 or more, or 0 to keep all weights in memory"
            )
        if not 0 < self.kv_budget_bytes < 1 << 63:
            raise InputError(f"--kv-budget-bytes is {self.kv_budget_bytes}; it must be above 0 and fit 63 bits")
        if self.thread_count < 0:
            raise InputError(f"--threads is {self.thread_count}; it must be 0 or more")
        if self.metrics_port is not None and not 0 <= self.metrics_port <= 65535:
            raise InputError(f"--metrics-port is {self.metrics_port}; it must be from 0 to 65535")
        if not 0 < self.read_timeout_seconds <= MAX_READ_TIMEOUT_SECONDS:
            raise InputError(f"--read-timeout-seconds is {self.read_timeout_seconds}; it must be above 0 and at most "
                             f"{MAX_READ_TIMEOUT_SECONDS}")  # fmt: skip
