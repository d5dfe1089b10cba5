"""Which nodes are heard, for the log: who has come, fell silent, is back, and what each serves. An entry a change.

Who else is to know who is there, as Prometheus is (targets.py), is told at every look.

Does not cover: hearing them (membership/services.py), what becomes of their answers (answering/answers.py).
Threads: one that looks every two seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from common.program.logs import entry
from coordinator.membership.reach import is_alive
from coordinator.models.served import Served
from protos.shardmesh.v1 import mesh_pb2

LOOK_SECONDS = 2.0

log = logging.getLogger(__name__)


class _Said(NamedTuple):
    said: tuple[str, int, str]
    """Where it is, the rank and the model of its slice."""
    served: Served | None


class NodeWatch:
    """Looks, once it is started. Close it."""

    def __init__(
        self, nodes: Callable[[], Sequence[mesh_pb2.Node]],
        served: Callable[[mesh_pb2.Node], Served | None] = lambda node: None,
        seen: Callable[[Sequence[mesh_pb2.Node]], None] = lambda nodes: None,
        *, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Args: nodes: what the mesh knows of its members now; served: what a node serves, by names of people;
        seen: called with the members at each look; clock: seconds, for how long a node was away.
        """
        self._nodes, self._served, self._seen, self._clock = nodes, served, seen, clock
        self._heard: dict[str, _Said] = {}
        self._lost_at: dict[str, float] = {}
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
            if is_alive(node):
                self._look_at(node)
            elif name in self._heard:
                del self._heard[name]
                self._lost_at[name] = self._clock() - node.silent_seconds
                log.warning(
                    "%s", entry("node lost", node=name, address=node.address, silent_seconds=node.silent_seconds)
                )
        for gone in (self._heard.keys() | self._lost_at.keys()) - nodes.keys():
            self._heard.pop(gone, None)  # who was removed has an entry of its own
            self._lost_at.pop(gone, None)
        self._seen(seen)

    def _look_at(self, node: mesh_pb2.Node) -> None:
        """Write down a node that is heard now and was not before, or that serves another slice than before."""
        before = self._heard.get(node.name)
        said = (node.address, node.rank, node.model_identity)
        if before is not None and before.said == said and (before.served is not None or node.rank < 0):
            return
        served = self._served(node) if node.rank >= 0 else None
        self._heard[node.name] = _Said(said, served)
        about = {"node": node.name, "address": node.address, **({} if served is None else served._asdict())}
        lost_at = self._lost_at.pop(node.name, None)
        if lost_at is not None:
            log.info("%s", entry("node back", **about, away_seconds=self._clock() - lost_at))
        elif before is None:
            log.info("%s", entry("node heard", **about))
        elif before.served != served:
            log.info("%s", entry("node serves nothing" if served is None else "node serves", **about))

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
