"""A node with its listeners, from start to drain: gRPC, rounds without it, the metrics page.

Covers: the order in which they start and end. Does not cover: flags (cli.py), forking (pool.py).
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from common.machine.operating_system import share_heaps
from common.program.door_series import DoorSeries
from common.program.lifecycle import CLOSE_SECONDS, DRAIN_SECONDS, LAST_WORDS_SECONDS, close_within
from common.program.logs import entry
from common.program.metrics_page import MetricsPage
from common.program.process_series import MemorySeries, make_registry, show_damaged_state
from common.program.service_notify import ServiceNotifier
from common.trust.metrics_place import is_for_others
from common.wire.rpc import check_listen_address
from shardnode.config import NodeConfig
from shardnode.listeners.direct import DirectServer
from shardnode.listeners.frames import ROUNDS, FramesServer
from shardnode.listeners.service import CALLS, Endpoints, NodeServer
from shardnode.membership.membership_series import MembershipSeries
from shardnode.sessions.live_sessions import LiveSessions
from shardnode.sessions.session_series import SessionSeries
from shardnode.slices.serving import Serving
from shardnode.slices.slice_series import SliceSeries
from shardnode.slices.slice_store import SliceStore
from shardnode.work.work_series import WorkSeries

if TYPE_CHECKING:  # certificates and heartbeats are for members
    from shardnode.membership.membership import Membership, Presence

log = logging.getLogger(__name__)

METRICS = "metrics"
"""What the port of the page is called."""


class NodeSeries:
    """All series of one node, in one registry."""

    def __init__(self, config: NodeConfig) -> None:
        self.registry = make_registry("shardnode")
        show_damaged_state("shardmesh_node", self.registry)
        self.memory = MemorySeries("shardmesh_node", self.registry)
        self.work = WorkSeries(self.registry)
        self.sessions = SessionSeries(self.registry)
        self.membership = MembershipSeries(self.registry)
        self.doors = DoorSeries("shardmesh_node", (CALLS, ROUNDS, METRICS), self.registry)
        self.slices = SliceSeries(self.registry, config.data_directory or config.slice_directory or Path())


class RunningNode:
    """A node that answers. Raises on construction what its parts raise, with nothing left running."""

    def __init__(self, config: NodeConfig, *, direct_path: str = "") -> None:
        share_heaps()
        self._stopping = threading.Event()
        self._seen_nanoseconds = -1
        self._directory = config.slice_directory
        self._closers = []
        try:
            self.series = series = NodeSeries(config)
            membership = None
            if config.coordinator and config.data_directory is not None:
                from shardnode.membership.join import IDENTITY_DIRECTORY
                from shardnode.membership.membership import Membership

                membership = Membership(
                    config.data_directory / IDENTITY_DIRECTORY, config.data_directory, config.coordinator
                )  # fmt: skip
            store = None
            if membership is not None and config.slice_directory is None and config.data_directory is not None:
                store = SliceStore(config.data_directory, config.keep_bytes)
                series.slices.follow(store)
            self._serving = serving = Serving(config, store, series=series.work)
            series.memory.budget_bytes.value = serving.budget_bytes
            self._closers.append(serving.close)
            live = LiveSessions()
            if direct_path:
                direct = DirectServer(serving.current(), direct_path, series.sessions)
                self._closers.append(direct.close)
            frames = _frames(config, serving, live, series, membership)
            if frames is not None:
                self._closers.append(frames.close)
            self.metrics_page = page = _metrics_page(config, series, membership)
            if page is not None:
                self._closers.append(page.close)
            endpoints = Endpoints(direct_path, 0 if frames is None else frames.port)
            self._server = server = NodeServer(
                config, serving, endpoints, membership, series.sessions, live, series.doors
            )
            server.start()
            if membership is not None:
                membership.members.changed = lambda: _look_again(server, frames)
            if membership is not None:  # heard until the last answer has ended: who is silent counts as gone
                series.membership.follow(membership)
                self._closers.append(membership.close)
            self._closers.append(lambda: server.stop(LAST_WORDS_SECONDS))
            self.address = server.address
            name = None if membership is None else membership.peer.name
            log.info("%s", entry("node has started", node=name, address=self.address, **serving.served()))
            if membership is not None:
                membership.start(lambda: _presence(config.advertise or server.address, serving, page))
        except BaseException:
            self.close()
            raise

    @property
    def metrics_port(self) -> int:
        """Where metrics are read; 0: nowhere."""
        return 0 if self.metrics_page is None else self.metrics_page.port

    @property
    def served(self) -> str:
        """What it serves now, for a person."""
        node = self._serving.node
        if node is None:
            return f"no slice ({self._serving.trouble})" if self._serving.trouble else "no slice yet"
        if self._directory is not None:
            return str(self._directory)
        manifest = node.manifest
        return f"slice {manifest.slice_id[:12]}, rank {manifest.rank} of {manifest.plan.world_size},"

    def stop(self) -> None:
        """Ask `wait` to return."""
        self._stopping.set()

    def wait(self) -> None:
        """Serve until `stop`, then drain and close; systemd, where it started us, hears of it."""
        ServiceNotifier().run(self._stopping, self._is_alive, f"serving on {self.address}")
        close_within(CLOSE_SECONDS, self._drain_and_close)
        log.info("%s", entry("node has ended", address=self.address))

    def _drain_and_close(self) -> None:
        self._server.drain(DRAIN_SECONDS)
        self.close()

    def _is_alive(self) -> bool:
        """Tell whether the node is idle, or has computed something since the last look."""
        node = self._serving.node
        if node is None or not node.lock.locked():
            return True
        before, self._seen_nanoseconds = self._seen_nanoseconds, node.compute_nanoseconds
        return self._seen_nanoseconds != before

    def close(self) -> None:
        """Stop listening, let running calls end, free everything. May be called twice."""
        while self._closers:
            self._closers.pop()()


def _look_again(server: NodeServer, frames: FramesServer | None) -> None:
    """End the connections of who is no member any more."""
    server.look_again()
    if frames is not None:
        frames.look_again()


def _frames(
    config: NodeConfig, serving: Serving, live: LiveSessions, series: NodeSeries, membership: Membership | None
) -> FramesServer | None:  # fmt: skip
    """Return what takes rounds without gRPC from other devices; None: nothing does."""
    place = config.rounds_place()
    if place is None:
        return None
    door = None
    if membership is None:
        check_listen_address(config.listen, insecure=config.insecure)
    else:
        from common.trust.rounds_door import RoundsDoor

        door = RoundsDoor(membership.identity, membership.judge)
    try:
        return FramesServer(*place, serving, live, series.sessions, door, series.doors)
    except OSError as error:  # rounds over gRPC are slower, and there
        why = f"{error.strerror or error}; choose another --rounds-port"
        log.warning("%s", entry("rounds over gRPC only", port=place[1], error=why))
        return None


def _metrics_page(config: NodeConfig, series: NodeSeries, membership: Membership | None) -> MetricsPage | None:
    """Return the page for Prometheus, which listens; None: there is none."""
    place = config.metrics_place()
    if place is None:
        return None
    door = None
    if membership is not None and is_for_others(place):
        from common.trust.bearer_token import BearerToken
        from common.trust.metrics_door import MetricsDoor

        token = None if config.metrics_token_file is None else BearerToken(config.metrics_token_file)
        door = MetricsDoor(membership.identity, membership.observers, token)
    return MetricsPage(series.registry, place, door, count=series.doors.connections(METRICS))


def _presence(address: str, serving: Serving, page: MetricsPage | None) -> Presence:
    from shardnode.membership.membership import Presence

    node = serving.node
    return Presence(
        listen=address, rank=-1 if node is None else node.manifest.rank,
        model_identity="" if node is None else node.manifest.model_identity,
        program_bytes=serving.program_bytes, budget_bytes=serving.budget_bytes,
        metrics="" if page is None else page.url.removesuffix("/metrics"),
    )  # fmt: skip
