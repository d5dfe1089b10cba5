"""Several shard nodes on one machine: one process imports everything once, then forks a child for each node.

Covers: starting, telling the parent about each child, ending them all. Started by coordinator/local.py, not by
people: `python -m shardnode.pool`, one JSON line of instructions on stdin, one JSON line per node on stdout.
Does not cover: what a node does (run.py).

Five processes that each import torch hold 1,100 MB together; forked from one parent they hold 324 MB. The parent
runs no torch operation and no gRPC before it forks: neither survives a fork once it has threads.
Stdin stays open as the lifeline: when whoever started the pool ends, the pool and its children end.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.lifecycle import watch_lifeline
from common.logs import configure_logs
from common.operating_system import end_with_parent
from common.rpc import status_of
from shardnode.config import NodeConfig
from shardnode.run import RunningNode

STDIN, STDOUT = 0, 1


@dataclass(frozen=True, kw_only=True)
class PoolOrder:
    """What the parent asks for."""

    run_directory: Path
    """Holds the sockets; removed at the end."""
    nodes: tuple[NodeConfig, ...]


def main() -> int:
    """Start the nodes that stdin names, wait until they are told to end, and return the exit code."""
    configure_logs("warning")
    end_with_parent()
    order = _read_order()
    gc.freeze()  # pages that the collector never touches stay shared with the children
    children: dict[int, int] = {}
    for rank, config in enumerate(order.nodes):
        child = os.fork()
        if child == 0:
            os._exit(_run_child(rank, config, order.run_directory))
        children[child] = rank

    def end_all() -> None:
        for child in children:
            _kill(child)
        shutil.rmtree(order.run_directory, ignore_errors=True)
        os._exit(0)

    watch_lifeline(STDIN, end_all)
    while children:
        child, _ = os.wait()
        children.pop(child, None)
    shutil.rmtree(order.run_directory, ignore_errors=True)
    return 0


def _read_order() -> PoolOrder:
    """Read one line from stdin without reading beyond it: what follows is the lifeline."""
    line = bytearray()
    while (byte := os.read(STDIN, 1)) not in (b"", b"\n"):
        line += byte
    try:
        value: dict[str, Any] = json.loads(line)
        nodes = tuple(
            NodeConfig(**{**node, "slice_directory": Path(node["slice_directory"])}) for node in value["nodes"]
        )
        return PoolOrder(run_directory=Path(value["run_directory"]), nodes=nodes)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the pool's order cannot be read: {error}") from error


def _run_child(rank: int, config: NodeConfig, run_directory: Path) -> int:
    """Run one node until the lifeline ends; tell its address, or why there is none, on stdout."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        node = RunningNode(config, direct_path=str(run_directory / f"rounds{rank}.sock"))
    except Exception as error:  # the edge of a process: the parent hears of it
        status = status_of(error)
        _tell({"rank": rank, "reason": status.reason, "code": status.code, "message": status.message})
        return 1
    _tell({"rank": rank, "process_id": os.getpid(), "address": node.address, "metrics_port": node.metrics_port})
    watch_lifeline(STDIN, lambda: os._exit(0))
    node.wait()
    return 0


def _tell(value: dict[str, Any]) -> None:
    os.write(STDOUT, json.dumps(value).encode() + b"\n")  # one write below PIPE_BUF: lines do not mix


def _kill(process_id: int) -> None:
    try:
        os.kill(process_id, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main())
