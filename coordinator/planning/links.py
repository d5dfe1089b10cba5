"""How long is the way to the nodes: round trips, bandwidth, a round with all of them at once; and how fast are they?

    with MeshEchoes(mesh, names, told) as echoes:
        echoes.links(), echoes.round_seconds(2304)

Covers: measuring, over what rounds would take: in frames where a node has a port for them, else over gRPC.
Does not cover: what it means for tokens (prediction.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import TypeVar

from common.compute.device_speeds import DeviceSpeeds
from common.errors import NotTrusted, ShardmeshError
from coordinator.membership.reach import MeshAccess
from coordinator.ranks.transports.carriers import AUTO, FRAMES, GRPC
from coordinator.ranks.transports.connecting import Reaching
from coordinator.ranks.transports.echo import Echoes, EchoStream, Link
from coordinator.ranks.transports.echo_lane import EchoLane
from coordinator.ranks.transports.echo_rounds import EchoRounds
from protos.shardmesh.v1 import links_pb2, links_pb2_grpc

DEVICE_SECONDS, ECHO_SECONDS = 90.0, 120.0
SMALL_BYTES, LARGE_BYTES = 64, 1 << 18
"""Enough to tell 10 Mbit/s from 1 Gbit/s, and little enough for the former: four megabytes a node in all."""
WARM_UPS, SMALL_ROUNDS, LARGE_ROUNDS = 5, 25, 3

T = TypeVar("T")


def measure_device(mesh: MeshAccess, name: str) -> DeviceSpeeds:
    """Have a node measure its device; 0 for what it cannot. Raises: NodeError; ResourceError: it has no room now."""
    response: links_pb2.MeasureDeviceResponse = mesh.ask(
        name, lambda to: links_pb2_grpc.LinkServiceStub(to).MeasureDevice, links_pb2.MeasureDeviceRequest(),
        DEVICE_SECONDS,
    )  # fmt: skip
    return DeviceSpeeds.told_by(response)


class MeshEchoes:
    """Echoes to some nodes. Use as a context manager."""

    def __init__(self, mesh: MeshAccess, names: Sequence[str], told: Callable[[str], None], rounds: str = AUTO) -> None:
        """Args: told: called with what a person should know; rounds: what is to carry rounds, of ROUNDS."""
        self._mesh, self._names, self._told, self._rounds = mesh, names, told, rounds
        self._closing = ExitStack()
        self._lanes: list[EchoLane] = []

    def __enter__(self) -> MeshEchoes:
        """Raises: NodeLost, NotTrusted: a node cannot be reached."""
        reaching = Reaching(self._mesh, self._rounds)
        with ExitStack() as opening:
            for name in self._names:
                channel = opening.enter_context(closing(self._mesh.reach(name)))
                port = 0
                if self._rounds != GRPC:
                    with EchoStream(channel, name, ECHO_SECONDS) as stream:
                        stream.round(SMALL_BYTES)
                        port = stream.rounds_port
                self._lanes.append(EchoLane(name, channel, reaching.without_session(name, port)))
            self._closing = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def links(self) -> dict[str, Link]:
        """Measure the way to each node, one after another. Raises: NodeLost, NotTrusted: a node cannot be reached."""
        return {lane.name: self._tried([lane], lambda streams: _link(streams[0])) for lane in self._lanes}

    def round_seconds(self, byte_count: int) -> float:
        """Return the seconds of a round in which nobody computes: so many bytes to every node, as many back. Raises: as
        `links`.
        """
        count = LARGE_ROUNDS if byte_count >= LARGE_BYTES else SMALL_ROUNDS

        def measured(streams: Sequence[Echoes]) -> float:
            rounds = EchoRounds(streams)
            return _median(lambda: rounds.seconds(byte_count), count)

        return self._tried(self._lanes, measured)

    def _tried(self, lanes: Sequence[EchoLane], measure: Callable[[Sequence[Echoes]], T]) -> T:
        """Return what is measured over streams to some nodes: over gRPC, as rounds would go, where frames fail."""
        try:
            with ExitStack() as streams:
                return measure([streams.enter_context(lane.stream(ECHO_SECONDS)) for lane in lanes])
        except NotTrusted:
            raise
        except ShardmeshError as error:
            framed = [lane for lane in lanes if lane.is_framed]
            if not framed or self._rounds == FRAMES:
                raise
            for lane in framed:
                lane.over_grpc(error)
            self._told(f"measuring over gRPC, as rounds would go: {error}")
            return self._tried(lanes, measure)


def _link(stream: Echoes) -> Link:
    small = _median(lambda: stream.round(SMALL_BYTES), SMALL_ROUNDS)
    large = _median(lambda: stream.round(LARGE_BYTES), LARGE_ROUNDS)
    return Link(round_trip_seconds=small, bytes_per_second=2 * LARGE_BYTES / max(1e-9, large - small))


def _median(measure: Callable[[], float], count: int) -> float:
    for _ in range(WARM_UPS if count > LARGE_ROUNDS else 1):
        measure()
    return statistics.median(measure() for _ in range(count))
