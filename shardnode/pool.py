"""Several shard nodes on one machine: one process imports everything once, then forks a child for each node.

Covers: starting, telling the parent about each child, ending them all. Started by coordinator/local/pool.py, not by
people: `python -m shardnode.pool DIRECTORY`, one JSON line of instructions on stdin; on stdout one JSON line when all
is imported, then one per node.
Does not cover: what a node does (run.py).

Five processes that each import everything hold 170 MB together; forked from one parent they hold 90 MB, and import it
once. The parent runs no product and no gRPC before it forks: neither survives a fork once it has threads.
Stdin stays open as the lifeline: when whoever started the pool ends, the pool and its children end, and DIRECTORY,
which holds their sockets, is removed. While the imports take their seconds nobody reads stdin; on Linux the kernel
sends SIGTERM.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from common.errors import InputError
from common.machine.operating_system import end_with_parent, leave_foreground, wake_politely
from common.program.lifecycle import is_cut, watch_lifeline
from common.program.logs import configure_logs
from common.weights.weight_memory import WeightMemory
from shardnode.config import NodeConfig

STDIN, STDOUT = 0, 1


def main() -> int:
    """Start the nodes that stdin names, wait until they are told to end, and return the exit code."""
    run_directory = Path(sys.argv[1])
    children: list[int] = []

    def end_all() -> None:
        for child in children:
            _kill(child)
        for child in children:
            with contextlib.suppress(ChildProcessError):  # the other thread has waited for it
                os.waitpid(child, 0)
        shutil.rmtree(run_directory, ignore_errors=True)
        os._exit(0)

    def on_signal(number: int, frame: FrameType | None) -> None:
        end_all()

    leave_foreground()
    signal.signal(signal.SIGTERM, on_signal)
    end_with_parent(signal.SIGTERM)
    if is_cut(STDIN):
        end_all()  # the parent ended before the kernel knew that we want to be told
    configure_logs("warning")
    # How an answer ends is told by who asked, on the very terminal where these lines would be.
    logging.getLogger("shardnode.sessions").setLevel(logging.ERROR)
    _import_everything()
    _tell({"imported": True})
    configs = _read_order()
    gc.freeze()  # pages that the collector never touches stay shared with the children
    for rank, config in enumerate(configs):
        child = os.fork()
        if child == 0:
            os._exit(_run_child(rank, config, run_directory))
        children.append(child)
    watch_lifeline(STDIN, end_all)
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            os.wait()
    end_all()
    return 0


def _import_everything() -> None:
    """Import what nodes need, here and so only once, after the parent's end has begun to be noticed."""
    import shardnode.run  # noqa: F401 - for those who import it after the fork


def _read_order() -> tuple[NodeConfig, ...]:
    """Read one line from stdin without reading beyond it: what follows is the lifeline. No line: no nodes."""
    line = bytearray()
    while (byte := os.read(STDIN, 1)) not in (b"", b"\n"):
        line += byte
    if not line:
        return ()
    try:
        nodes: list[dict[str, Any]] = json.loads(line)["nodes"]
        return tuple(_config(node) for node in nodes)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the pool's order cannot be read: {error}") from error


def _config(node: dict[str, Any]) -> NodeConfig:
    return NodeConfig(**{
        **node, "slice_directory": Path(node["slice_directory"]), "weights": WeightMemory(**node["weights"])
    })  # fmt: skip


def _run_child(rank: int, config: NodeConfig, run_directory: Path) -> int:
    """Run one node until the lifeline ends; tell its address, or why there is none, on stdout."""
    from common.wire.rpc import status_of
    from shardnode.run import RunningNode

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    wake_politely()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        node = RunningNode(config, direct_path=str(run_directory / f"rounds{rank}.sock"))
    except Exception as error:  # noqa: BLE001 - the edge of a process: the parent hears of it
        status = status_of(error)
        _tell({"rank": rank, "reason": status.reason, "code": status.code, "message": status.message})
        return 1
    _tell({"rank": rank, "process_id": os.getpid(), "address": node.address, "metrics_port": node.metrics_port})
    watch_lifeline(STDIN, lambda: os._exit(0))
    node.wait()
    return 0


def _tell(value: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: the lifeline is about to end us
        os.write(STDOUT, json.dumps(value).encode() + b"\n")  # one write below PIPE_BUF: lines do not mix


def _kill(process_id: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
