"""How long is the way to the nodes: round trips, bandwidth, a round with all of them at once; and how fast are they?

Covers: measuring, over the same kind of stream as rounds. Does not cover: what it means for tokens (prediction.py).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

from common.compute.device_speeds import DeviceSpeeds
from coordinator.membership.reach import MeshAccess
from coordinator.ranks.transports.echo import EchoStream, Link
from protos.shardmesh.v1 import links_pb2, links_pb2_grpc

DEVICE_SECONDS, ECHO_SECONDS = 90.0, 120.0
SMALL_BYTES, LARGE_BYTES = 64, 1 << 18
"""Enough to tell 10 Mbit/s from 1 Gbit/s, and little enough for the former: four megabytes a node in all."""
WARM_UPS, SMALL_ROUNDS, LARGE_ROUNDS = 5, 25, 3


def measure_device(mesh: MeshAccess, name: str) -> DeviceSpeeds:
    """Have a node measure its device; 0 for what it cannot. Raises: NodeError; ResourceError: it has no room now."""
    response: links_pb2.MeasureDeviceResponse = mesh.ask(
        name, lambda to: links_pb2_grpc.LinkServiceStub(to).MeasureDevice, links_pb2.MeasureDeviceRequest(),
        DEVICE_SECONDS,
    )  # fmt: skip
    return DeviceSpeeds.told_by(response)


def measure_links(mesh: MeshAccess, names: Sequence[str]) -> dict[str, Link]:
    """Measure the way to each node, one after another. Raises: NodeLost, NotTrusted: a node cannot be reached."""
    links = {}
    for name in names:
        with _Echo(mesh, name) as echo:
            small = _median(lambda: echo.round(SMALL_BYTES), SMALL_ROUNDS)
            large = _median(lambda: echo.round(LARGE_BYTES), LARGE_ROUNDS)
        rate = 2 * LARGE_BYTES / max(1e-9, large - small)
        links[name] = Link(round_trip_seconds=small, bytes_per_second=rate)
    return links


def measure_round(mesh: MeshAccess, names: Sequence[str], byte_count: int) -> float:
    """Return the seconds of a round in which nobody computes: so many bytes to every node at once, as many back."""
    with ExitStack() as closing:
        echoes = [closing.enter_context(_Echo(mesh, name)) for name in names]

        def one_round() -> float:
            started = time.perf_counter()
            for echo in echoes:
                echo.send(byte_count)
            for echo in echoes:
                echo.receive()
            return time.perf_counter() - started

        return _median(one_round, LARGE_ROUNDS if byte_count >= LARGE_BYTES else SMALL_ROUNDS)


def _median(measure: Callable[[], float], count: int) -> float:
    for _ in range(WARM_UPS if count > LARGE_ROUNDS else 1):
        measure()
    return statistics.median(measure() for _ in range(count))


class _Echo(EchoStream):
    """One stream to one node, over a channel of its own."""

    def __init__(self, mesh: MeshAccess, name: str) -> None:
        self._channel = mesh.reach(name)
        super().__init__(self._channel, name, ECHO_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._channel.close()
