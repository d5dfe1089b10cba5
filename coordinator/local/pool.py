"""Shard nodes as child processes on this machine, from start to the last one's end.

Covers: starting the pool, learning addresses or the first error, ending everything however we end.
Does not cover: what the pool does (shardnode/pool.py; it is started as a program, never imported).

The pool's stdin is the lifeline: we hold the only writing end, so the kernel closes it even on kill -9.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.compute.backend import NATIVE
from common.errors import NodeLost, NodeTimeout
from common.machine.forked_program import ForkedProgram
from common.machine.operating_system import ProcessMemory, process_memory, usable_core_count
from common.weights.weight_memory import WeightMemory
from common.wire.rpc import Status, error_from
from common.wording import counted

POOL = "shardnode.pool"
"""The program that forks the nodes. Run, not imported: what it imports stays out of this process."""
_OWN_GROUP: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
"""Ctrl-C is not for the pool; why a session is second best: operating_system.leave_foreground."""
START_LIMIT_SECONDS = 120.0
END_LIMIT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class LocalNode:
    """One child."""

    rank: int
    process_id: int
    address: str


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """How the nodes of this machine are to run."""

    slice_directories: Sequence[Path]
    weights: Sequence[WeightMemory]
    """Per rank."""
    kv_budget_bytes: Sequence[int]
    """Per rank."""
    backend: str = NATIVE
    use_gpu: bool = False


class LocalNodes:
    """The pool and its nodes. Close it; if this process dies first, they end by themselves.

    Making one starts the pool's imports, so make it early and do other things before `start`.
    """

    def __init__(self, *, forks: bool = False) -> None:
        """Start the pool. Args: forks: this process has run nothing yet, so the pool may be forked from it and share
        what both need, which is imported here.
        """
        # A Unix socket's path may have 108 bytes at most, so it lies in the system's own short temporary directory.
        self._run_directory = Path(tempfile.mkdtemp(prefix="shardmesh-"))
        self._has_order = self._has_imported = False
        self._process: ForkedProgram | subprocess.Popen[bytes]
        if forks:
            _import_what_nodes_need()
            self._process = ForkedProgram(POOL, [str(self._run_directory)])
        else:
            self._process = subprocess.Popen(
                [sys.executable, "-m", POOL, str(self._run_directory)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, **_OWN_GROUP,
            )  # fmt: skip

    def start(self, options: LocalOptions) -> tuple[LocalNode, ...]:
        """Start one node per slice directory and wait until every one listens.

        Raises: NodeLost, NodeTimeout: the pool ended or hangs; whatever a node failed with, its rank named.
        """
        self._read_until_imported()
        self._send_order(options)
        return self._collect_nodes(len(options.slice_directories))

    def imported_memory(self) -> ProcessMemory:
        """Return what the pool takes once it has imported everything and forked nothing; waits for that.

        Raises: NodeLost: it ended; psutil.Error: it may not be looked at.
        """
        self._read_until_imported()
        return process_memory(self._process.pid)

    def close(self) -> None:
        """End every node and wait for it. May be called twice."""
        if not self._has_order:
            self._process.kill()  # it has no children yet, and may be in the middle of seconds of imports
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(END_LIMIT_SECONDS)
        except (subprocess.TimeoutExpired, TimeoutError):
            self._process.kill()  # its children end with it: PDEATHSIG, or the lifeline that is closed
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._run_directory, ignore_errors=True)

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    def _read_until_imported(self) -> None:
        """Read the pool's first line, which says that it has imported everything; nothing a second time."""
        if self._has_imported:
            return
        assert self._process.stdout is not None  # Popen was asked for a pipe
        if not select.select([self._process.stdout], [], [], START_LIMIT_SECONDS)[0]:
            raise NodeTimeout(f"the shard nodes did not start within {START_LIMIT_SECONDS:.0f} s")
        if not self._process.stdout.readline():
            raise NodeLost("the shard nodes did not start; the lines above may say why")
        self._has_imported = True

    def _send_order(self, options: LocalOptions) -> None:
        cores, count = usable_core_count(), len(options.slice_directories)
        nodes = [
            {
                "slice_directory": str(directory),
                "listen": f"unix:{self._run_directory}/node{rank}.sock",
                "weights": asdict(options.weights[rank]),
                "kv_budget_bytes": options.kv_budget_bytes[rank],
                "thread_count": max(1, cores // count),
                # Between rounds the coordinator wants a core at once; one node alone has whole layers to run.
                "row_thread_count": cores if count == 1 else max(1, (cores - 1) // count),
                "home_core": _home_core(rank, count, cores),
                "backend": options.backend,
                "use_gpu": options.use_gpu,
            }
            for rank, directory in enumerate(options.slice_directories)
        ]
        self._has_order = True
        try:
            self._stdin.write(json.dumps({"nodes": nodes}).encode() + b"\n")
            self._stdin.flush()
        except OSError as error:
            raise NodeLost(f"the shard nodes did not start: {error.strerror}") from error

    def _collect_nodes(self, count: int) -> tuple[LocalNode, ...]:
        limit = time.monotonic() + START_LIMIT_SECONDS
        buffered = b""
        found: dict[int, LocalNode] = {}
        assert self._process.stdout is not None  # Popen was asked for a pipe
        descriptor = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while len(found) < count:
                if not selector.select(limit - time.monotonic()):
                    raise NodeTimeout(f"{count - len(found)} of {counted(count, 'shard node')} did not start within "
                                      f"{START_LIMIT_SECONDS:.0f} s")  # fmt: skip
                data = os.read(descriptor, 65536)
                if not data:
                    raise NodeLost(f"{count - len(found)} of {counted(count, 'shard node')} ended while they started; "
                                   "the lines above may say why")  # fmt: skip
                *lines, buffered = (buffered + data).split(b"\n")
                for line in lines:
                    node = _read_line(json.loads(line))
                    found[node.rank] = node
        return tuple(found[rank] for rank in range(count))


def _import_what_nodes_need() -> None:
    """Import what both this process and nodes need: a fork has it for nothing, and in the same pages."""
    import grpc  # noqa: F401 - for those who import it later
    import numpy as np  # noqa: F401
    import prometheus_client  # noqa: F401

    import common.compute.backend
    import common.compute.tile_products
    import common.weights.open_tiles
    import common.wire.framing
    import common.wire.residual_message
    import common.wire.rpc  # noqa: F401
    import protos.shardmesh.v1.shard_pb2_grpc  # noqa: F401


def _home_core(rank: int, node_count: int, core_count: int) -> int | None:
    """Return the core that a node waits on; None where one has no neighbours, several cores, or no choice.

    Neighbours in rank share a core: plans give whoever has more of the attention less of the FFN, and take turns.
    """
    return rank * core_count // node_count if 1 < core_count < 2 * node_count and node_count > 1 else None


def _read_line(value: dict[str, Any]) -> LocalNode:
    if "reason" in value:
        status = Status(code=value["code"], reason=value["reason"], message=value["message"])
        raise error_from(status, f"node {value['rank']}")
    return LocalNode(rank=value["rank"], process_id=value["process_id"], address=value["address"])
