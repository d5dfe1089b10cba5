"""Which nodes are heard, for the log: who has come, who fell silent, who is back. One entry each time that changes.

Who else is to know who is there, as Prometheus is (targets.py), is told at every look.

Does not cover: hearing them (membership/services.py), what becomes of their answers (answering/answers.py).
Threads: one that looks once a second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from common.program.logs import entry
from coordinator.membership.reach import is_alive
from protos.shardmesh.v1 import mesh_pb2

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


class NodeWatch:
    """Looks, once it is started. Close it."""

    def __init__(
        self, nodes: Callable[[], Sequence[mesh_pb2.Node]],
        seen: Callable[[Sequence[mesh_pb2.Node]], None] = lambda nodes: None,
    ) -> None:  # fmt: skip
        """Args: nodes: what the mesh knows of its members now; seen: called with them at each look."""
        self._nodes, self._seen = nodes, seen
        self._heard: set[str] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def look(self) -> None:
        """Write down what has changed since the last look."""
        seen = self._nodes()
        nodes = {node.name: node for node in seen}
        for name, node in nodes.items():
            if is_alive(node) and name not in self._heard:
                self._heard.add(name)
                log.info("%s", entry("node heard", node=name, address=node.address))
            elif not is_alive(node) and name in self._heard:
                self._heard.remove(name)
                log.warning(
                    "%s", entry("node lost", node=name, address=node.address, silent_seconds=node.silent_seconds)
                )
        self._heard &= nodes.keys()  # who was removed has an entry of its own
        self._seen(seen)

    def close(self) -> None:
        """Look no more. May be called twice, and without start."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # the thread's edge; without it the log would be silent about every node
                log.exception("nodes are watched again, after an unforeseen error")
