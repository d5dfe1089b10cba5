"""What do the star's rounds cost over bare sockets, below which no Python program on this machine gets?

Covers: the same exchange (send to all, receive from all, add in rank order) over plain TCP and over mutual TLS 1.3 of
the standard library, tensors alone; frames of the size of our messages over Unix sockets, without sums.
Does not cover: our own transports (star_routes.py), the processes (star.py).
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.trust.certificates import NODE, PeerName
from common.trust.identity import Identity
from common.wire.addresses import split_host_port
from common.wire.framing import FrameReader, send_frame
from common.wire.rpc import MAX_MESSAGE_BYTES
from common.wire.tensor_codec import encode_tensor
from protos.shardmesh.v1 import shard_pb2
from tests.bench.star_seats import CoordinatorSeat, NodeSeat

FRAMES, TCP, TLS = "bare frames", "bare TCP", "bare TLS"
FLOAT_BYTES = 4

Rounds = Callable[[int], None]
"""Runs so many rounds."""


@dataclass(frozen=True, kw_only=True)
class Bare:
    """One kind of bare socket."""

    serve: Callable[[NodeSeat], str]
    """In the node's process: listens, and gives the address."""
    connect: Callable[[Sequence[str], CoordinatorSeat, int, ExitStack], Rounds]
    """In the coordinator's process: to all addresses, in rank order, with rows of this hidden size."""


def _serve_tcp(seat: NodeSeat, context: ssl.SSLContext | None = None) -> str:
    listener = socket.create_server((seat.address, 0))
    threading.Thread(target=_answer, args=(listener, context, seat.hidden_size), daemon=True).start()
    host, port = listener.getsockname()
    return f"{host}:{port}"


def _answer(listener: socket.socket, context: ssl.SSLContext | None, hidden_size: int) -> None:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        connection = context.wrap_socket(connection, server_side=True)
    answer, rows = bytes(FLOAT_BYTES * hidden_size), memoryview(bytearray(FLOAT_BYTES * hidden_size))
    while _receive(connection, rows):
        connection.sendall(answer)


def _receive(connection: socket.socket, whole: memoryview) -> bool:
    """Fill the buffer; return whether the peer is still there."""
    done = 0
    while done < len(whole):
        count = connection.recv_into(whole[done:])
        if not count:
            return False
        done += count
    return True


def _connect_tcp(
    addresses: Sequence[str], seat: CoordinatorSeat, hidden_size: int, closing: ExitStack,
    context: ssl.SSLContext | None = None,
) -> Rounds:  # fmt: skip
    connections = []
    for address, name in zip(addresses, seat.node_names, strict=True):
        connection = socket.create_connection(split_host_port(address))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            expected = PeerName(mesh=seat.mesh_name, role=NODE, name=name)
            connection = context.wrap_socket(connection, server_hostname=expected.dns)
        connections.append(closing.enter_context(connection))
    rows, total = np.zeros((1, hidden_size), np.float32), np.zeros((1, hidden_size), np.float32)
    part = np.zeros((1, hidden_size), np.float32)
    view = part.view(np.uint8).data.cast("B")

    def run(count: int) -> None:
        for _ in range(count):
            message = rows.tobytes()
            for connection in connections:
                connection.sendall(message)
            total.fill(0)
            for connection in connections:
                if not _receive(connection, view):
                    raise ConnectionError("a node of the star has ended")
                np.add(total, part, out=total)

    return run


def _context(identity: Identity, directory: Path, purpose: int) -> ssl.SSLContext:
    """Return TLS 1.3 that shows a certificate and wants one. Args: purpose: ssl.PROTOCOL_TLS_SERVER or _CLIENT."""
    pair = directory / "bare.pem"
    pair.write_bytes(identity.own.key + identity.own.certificate)  # load_cert_chain takes files only
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=identity.authority.decode())
    context.load_cert_chain(pair)
    return context


def _serve_tls(seat: NodeSeat) -> str:
    return _serve_tcp(seat, _context(seat.identity, seat.run_directory, ssl.PROTOCOL_TLS_SERVER))


def _connect_tls(addresses: Sequence[str], seat: CoordinatorSeat, hidden_size: int, closing: ExitStack) -> Rounds:
    context = _context(seat.identity, seat.run_directory, ssl.PROTOCOL_TLS_CLIENT)
    return _connect_tcp(addresses, seat, hidden_size, closing, context)


def _serve_frames(seat: NodeSeat) -> str:
    path = f"{seat.run_directory}/frames"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    threading.Thread(target=_echo, args=(listener, _sized_message(seat.hidden_size)), daemon=True).start()
    return path


def _echo(listener: socket.socket, message: bytes) -> None:
    connection, _ = listener.accept()
    reader = FrameReader(connection, MAX_MESSAGE_BYTES)
    while reader.receive() is not None:
        send_frame(connection, message)


def _connect_frames(paths: Sequence[str], seat: CoordinatorSeat, hidden_size: int, closing: ExitStack) -> Rounds:
    message = _sized_message(hidden_size)
    connections = []
    for path in paths:
        connections.append(closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        connections[-1].connect(path)
    readers = [FrameReader(connection, MAX_MESSAGE_BYTES) for connection in connections]

    def run(count: int) -> None:
        for _ in range(count):
            for connection in connections:
                send_frame(connection, message)
            for reader in readers:
                reader.receive()

    return run


def _sized_message(hidden_size: int) -> bytes:
    """Return a message as long as a round's; request and response differ by a few bytes only."""
    response = shard_pb2.RoundsResponse(call_id=1)
    encode_tensor(np.zeros((1, hidden_size), np.float32), response.block_result.partial)
    return response.SerializeToString()


BARE: dict[str, Bare] = {
    FRAMES: Bare(serve=_serve_frames, connect=_connect_frames),
    TCP: Bare(serve=_serve_tcp, connect=_connect_tcp),
    TLS: Bare(serve=_serve_tls, connect=_connect_tls),
}
