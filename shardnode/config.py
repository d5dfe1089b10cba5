"""What a shard node is told at start: a frozen, checked set of values; nothing is read from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from common.compute.backend import NATIVE, backend_named, check_backend
from common.errors import InputError
from common.program.memory_flags import parse_budget
from common.program.metrics_page import MetricsPlace
from common.trust.metrics_place import metrics_place
from common.weights.manifest import read_manifest
from common.weights.weight_memory import WeightMemory
from common.wire.addresses import split_host_port
from common.wire.rpc import check_listen_address

ROUNDS_PORT_STEP = 10
"""From the port of gRPC to that of rounds in frames; not 1, which is where a second node would listen."""


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """One shard node."""

    slice_directory: Path | None
    """Directory with manifest.json and block files; None: a member of a mesh that holds no slice yet."""
    listen: str
    """`unix:/path`, or `host:port`; port 0 lets the system choose."""
    weights: WeightMemory = field(default_factory=WeightMemory)
    """Memory for weights, and how they are read."""
    memory_budget: str | None = None
    """Most memory of the whole process: a size, or auto; weights.budget_bytes follows from it when the node starts."""
    kv_budget_bytes: int | None = None
    """Most bytes of keys and values, all sequences together; None: DEFAULT_KV_BUDGET_BYTES, or a quarter of the budget
    if that is less."""
    thread_count: int = 0
    """Threads that compute; 0 takes one per processor that this process may use."""
    row_thread_count: int = 0
    """Threads that compute a few rows, which memory limits more than processors; 0 takes as many as thread_count."""
    home_core: int | None = None
    """Of the cores this process may use, counted from 0: where it works on a few rows, and waits for a prompt's next
    round. For nodes that are more than the cores they share: the kernel looks for an idle core when one wakes, but not
    where all have been busy, so it let them queue on one core beside an idle one until its next tick, milliseconds
    later. A prompt's rows a node computes wherever there is room."""
    backend: str = NATIVE
    """What computes: a name of common/compute/backend.py."""
    use_gpu: bool = False
    """Compute on CUDA, with torch."""
    rounds_port: int | None = None
    """Port for rounds without gRPC, on the host of `listen`; 0: any free one. None: see `rounds_place`."""
    metrics_port: int | None = None
    """Port of the Prometheus page on this machine."""
    metrics_listen: str = ""
    """host:port of the Prometheus page elsewhere; neither of the two: there is none."""
    metrics_token_file: Path | None = None
    """The token with which others read that page, beside observers of the mesh."""
    insecure: bool = False
    """Listen without TLS on an address that other devices reach."""
    coordinator: str = ""
    """host:port of the mesh's coordinator; empty: no mesh, and no TLS."""
    advertise: str = ""
    """host:port where the coordinator reaches this node, if not where it listens."""
    data_directory: Path | None = None
    """Where a member keeps its identity; None where there is no coordinator."""
    keep_bytes: int | None = None
    """Of tiles that no slice needs, what may stay for another plan; None: as much as the largest slice here."""

    def __post_init__(self) -> None:
        check_backend(self.backend)
        for address in filter(None, (self.advertise, self.coordinator)):
            split_host_port(address)
        if self.slice_directory is None and not self.coordinator:
            raise InputError("--slice-dir is missing: name a directory such as MODEL/split/node0, or join a mesh first "
                             "with `shardnode join TOKEN` (--help explains)")  # fmt: skip
        if self.kv_budget_bytes is not None and not 0 < self.kv_budget_bytes < 1 << 63:
            raise InputError(f"--kv-budget-bytes is {self.kv_budget_bytes}; it must be above 0 and fit 63 bits")
        if self.thread_count < 0:
            raise InputError(f"--threads is {self.thread_count}; it must be 0 or more")
        if self.rounds_port is not None and not 0 <= self.rounds_port <= 65535:
            raise InputError(f"--rounds-port is {self.rounds_port}; it must be from 0 to 65535")
        self.metrics_place()

    def rounds_place(self) -> tuple[str, int] | None:
        """Return host and port of rounds without gRPC; None where a Unix socket carries them.

        Unless it is told, the port of a member is that of `listen` and ROUNDS_PORT_STEP, so that a firewall can know
        it; of others, which have no firewall between, any free one.
        """
        if self.listen.startswith("unix:"):
            return None
        host, port = split_host_port(self.listen)
        if self.rounds_port is not None:
            return host, self.rounds_port
        is_known = self.coordinator and port and port + ROUNDS_PORT_STEP <= 65535
        return host, port + ROUNDS_PORT_STEP if is_known else 0

    def metrics_place(self) -> MetricsPlace | None:
        """Return where the Prometheus page is; None: nowhere. Raises: InputError: it cannot be there."""
        return metrics_place(
            self.metrics_port, self.metrics_listen, self.metrics_token_file,
            has_mesh=bool(self.coordinator) and self.data_directory is not None,
        )  # fmt: skip


def check_before_start(config: NodeConfig) -> None:
    """Look at what can be seen at once: the slice is one, the address may be listened on, something computes.

    Raises: SliceError: there is none, or it cannot be used; InputError: an address that others reach, without TLS; what
    computes is not here.
    """
    if config.memory_budget is not None:
        parse_budget(config.memory_budget, taken_bytes=0)
    if not config.coordinator:
        check_listen_address(config.listen, insecure=config.insecure)
    if config.slice_directory is not None:
        read_manifest(config.slice_directory)
    backend_named(config.backend, use_gpu=config.use_gpu)
