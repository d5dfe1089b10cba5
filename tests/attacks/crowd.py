"""A process that crowds a mesh's ports, as somebody would who wants them to serve nobody.

    python -m tests.attacks.crowd silent 127.0.0.1:29500 1100
    python -m tests.attacks.crowd stalled 127.0.0.1:29500 48 IDENTITY PATH_OF_A_METHOD
    python -m tests.attacks.crowd renewals 127.0.0.1:29500 8 IDENTITY
    python -m tests.attacks.crowd handshakes 127.0.0.1:29500 8 IDENTITY

Prints a line once all of it has begun, and goes on until its input ends. Covers: connections that say nothing and come
again when they are cut, calls that never send their message, calls and handshakes without an end.
Does not cover: what it does to the mesh (test_crowds.py, __main__.py).
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import grpc

from common.errors import ShardmeshError
from common.trust.certificates import COORDINATOR, PeerName
from common.trust.identity import load_identity
from common.trust.signing import make_key, make_request
from common.trust.tls import channel_to_authority, read_authority, secure_channel
from common.wire.addresses import socket_address
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc

OVER = threading.Event()
LIMIT_SECONDS = 5.0
STRANGER = "-"


class Poll(Protocol):
    """What select.poll makes."""

    def register(self, connection: socket.socket, events: int, /) -> None:
        """Tell of its events from now on."""


def silent(address: str, count: int) -> None:
    """Have connections that say nothing, and open each one again that is cut."""
    poll = select.poll()
    there: dict[int, socket.socket] = {}
    for _ in range(count):
        _open(address, poll, there)
    print("begun", flush=True)
    while not OVER.is_set():
        for descriptor, _ in poll.poll(100):
            poll.unregister(descriptor)
            there.pop(descriptor).close()
            if not OVER.wait(0.001):
                _open(address, poll, there)


def _open(address: str, poll: Poll, there: dict[int, socket.socket]) -> None:
    with suppress(OSError):
        connection = socket.create_connection(socket_address(address), timeout=LIMIT_SECONDS)
        there[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)


def stalled(address: str, count: int, identity: str, path: str) -> None:
    """Have calls that never send their message, and call again when one ends."""
    threads = [threading.Thread(target=_stall, args=(address, identity, path), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    print("begun", flush=True)
    OVER.wait()


def _stall(address: str, identity: str, path: str) -> None:
    while not OVER.is_set():
        with suppress(grpc.RpcError, ShardmeshError), _channel(address, identity) as channel:
            while not OVER.wait(0.1):
                channel.stream_unary(path, request_serializer=bytes, response_deserializer=bytes)(_never())


def _never() -> Iterator[bytes]:
    OVER.wait()
    yield from ()


def renewals(address: str, count: int, identity: str) -> None:
    """Ask for certificates, each for another key, without an end."""

    requests = itertools.cycle([
        mesh_pb2.RenewCertificateRequest(certificate_request=make_request(make_key())) for _ in range(100)
    ])  # fmt: skip

    def ask() -> None:
        with _channel(address, identity) as channel:
            stub = mesh_pb2_grpc.MeshServiceStub(channel)
            for request in requests:
                if OVER.is_set():
                    return
                with suppress(grpc.RpcError):
                    stub.RenewCertificate(request, timeout=LIMIT_SECONDS)
                OVER.wait(0.02)

    _many(ask, count)


def handshakes(address: str, count: int, identity: str) -> None:
    """Connect and call, a connection each time."""

    def ask() -> None:
        while not OVER.is_set():
            with _channel(address, identity) as channel, suppress(grpc.RpcError):
                mesh_pb2_grpc.MeshServiceStub(channel).Heartbeat(mesh_pb2.HeartbeatRequest(), timeout=LIMIT_SECONDS)
            OVER.wait(0.05)

    _many(ask, count)


def _many(ask: Callable[[], None], count: int) -> None:
    for _ in range(count):
        threading.Thread(target=ask, daemon=True).start()
    print("begun", flush=True)
    OVER.wait()


def _channel(address: str, directory: str) -> grpc.Channel:
    """Return a channel of a member's, or of a stranger's who trusts whoever answers."""
    if directory.startswith(STRANGER):
        mesh, fingerprint = directory[1:].split(":")
        authority = read_authority(address, bytes.fromhex(fingerprint))
        return channel_to_authority(address, authority, PeerName(mesh=mesh, role=COORDINATOR, name=mesh))
    identity = load_identity(Path(directory))
    mesh = identity.peer.mesh
    return secure_channel(address, identity, PeerName(mesh=mesh, role=COORDINATOR, name=mesh))


def main() -> None:
    """Do one kind of it until the input ends."""
    os.nice(19)  # somebody elsewhere takes no processor time of the mesh's but by what he asks
    kind, address, count, *more = sys.argv[1:]
    does: Callable[..., None] = {
        "silent": silent, "stalled": stalled, "renewals": renewals, "handshakes": handshakes
    }[kind]  # fmt: skip
    threading.Thread(target=lambda: (sys.stdin.read(), OVER.set()), daemon=True).start()
    with suppress(ShardmeshError):
        does(address, int(count), *more)


if __name__ == "__main__":
    main()
