"""What does a round cost when nobody computes: four node processes that answer at once, over each transport?

Covers: our own servers, sessions, clients and mesh, with an executor that returns a fixed partial sum; and, below
them, bare frames of the same sizes, which no Python program on this machine can beat.
Does not cover: comparing (star_floor.py, speed.py). `open_star` runs inside a worker (workers.py).
"""

from __future__ import annotations

import itertools
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import numpy as np

from common.machine.operating_system import end_with_parent
from common.weights.manifest import SliceManifest, read_manifest
from common.weights.slice_format import BLOCK_KINDS
from common.weights.stored_numbers import Floats
from common.wire.framing import FrameReader, send_frame
from common.wire.rpc import MAX_MESSAGE_BYTES, channel_options
from common.wire.tensor_codec import encode_tensor
from coordinator.ranks.identity import RanksIdentity
from coordinator.ranks.ranks import Ranks
from coordinator.ranks.sweep import Sweep
from coordinator.ranks.transports.framed import DirectShardClient
from coordinator.ranks.transports.grpc_stream import GrpcShardClient
from coordinator.ranks.transports.transport import ShardClient
from protos.shardmesh.v1 import shard_pb2
from shardnode.config import NodeConfig
from shardnode.listeners.direct import DirectServer
from shardnode.listeners.service import NodeServer
from shardnode.slices.serving import Serving
from shardnode.work.executor import BlockOutput, Executor
from shardnode.work.kv_cache import Segment
from shardnode.work.slice_at_work import ShardNode
from tests.bench.contenders import Turn, differences

FRAMES, DIRECT, GRPC_UNIX, GRPC_TCP = "bare frames", "direct socket", "gRPC over a Unix socket", "gRPC over TCP"
TRANSPORTS = (FRAMES, DIRECT, GRPC_UNIX, GRPC_TCP)
SEQUENCE_ID = 1


class _FixedExecutor(Executor):
    """Answers at once."""

    def __init__(self, hidden_size: int) -> None:
        self._output = BlockOutput(
            partial=np.zeros((1, hidden_size), np.float32),
            compute_nanoseconds=0,
            tile_wait_nanoseconds=0,
            core_wait_nanoseconds=0,
        )

    def run(self, kind: str, layer: int, segments: Sequence[Segment], rows: Floats) -> BlockOutput:
        return self._output


@contextmanager
def open_star(split_directory: Path, world_size: int) -> Iterator[Callable[[str, int], Turn]]:
    """Fork a node per rank, connect over every transport, and give the function that runs a transport's rounds."""
    with tempfile.TemporaryDirectory(prefix="shardmesh-bench-") as run_directory, ExitStack() as closing:
        # Forked before this process has any thread of gRPC, as shardnode/pool.py does.
        addresses = [
            _fork_node(split_directory / f"node{rank}", Path(run_directory) / str(rank), closing)
            for rank in range(world_size)
        ]
        manifest = read_manifest(split_directory / "node0")
        sweeps = {FRAMES: _frames_sweep([node[FRAMES] for node in addresses], manifest, closing)}
        for transport in (DIRECT, GRPC_UNIX, GRPC_TCP):
            clients = [_connect(transport, node[transport], closing) for node in addresses]
            sweeps[transport] = _mesh_sweep(clients, manifest, closing)

        def run(transport: str, token_count: int) -> Turn:
            stamps = [time.perf_counter()]
            for _ in range(token_count):
                sweeps[transport]()
                stamps.append(time.perf_counter())
            return Turn(token_ids=(), seconds_per_token=differences(stamps))

        yield run


def _connect(transport: str, address: str, closing: ExitStack) -> ShardClient:
    client: ShardClient
    if transport == DIRECT:
        client = DirectShardClient(address, transport)
    else:
        channel = grpc.insecure_channel(address, options=channel_options())
        closing.callback(channel.close)
        client = GrpcShardClient(channel, transport)
    closing.callback(client.close)
    return client


def _mesh_sweep(clients: Sequence[ShardClient], manifest: SliceManifest, closing: ExitStack) -> Callable[[], None]:
    """Return the function that runs the rounds of one token through a mesh of ours."""
    identity = RanksIdentity(
        model_identity=manifest.model_identity, spec=manifest.spec, plan=manifest.plan, dtype=manifest.dtype
    )
    ranks = Ranks(clients=clients, identity=identity)
    closing.callback(ranks.close)
    ranks.open()
    changes = shard_pb2.SequenceChanges()
    changes.opened.add(sequence_id=SEQUENCE_ID, position_capacity=1)
    segments = [shard_pb2.Segment(sequence_id=SEQUENCE_ID, first_position=0, row_count=1, rotary_length=1)]
    rows = np.zeros((1, manifest.spec.hidden_size), np.float32)

    sweep_ids = itertools.count(1)

    def sweep() -> None:
        number = next(sweep_ids)
        once = Sweep(sweep_id=number, segments=segments, changes=changes if number == 1 else None)
        for layer in range(manifest.spec.layer_count):
            for kind in BLOCK_KINDS:
                ranks.run_block(kind, layer, once, rows)

    return sweep


def _frames_sweep(paths: Sequence[str], manifest: SliceManifest, closing: ExitStack) -> Callable[[], None]:
    """Return the function that sends and receives as many bytes as the rounds of one token, and no more."""
    message = _sized_message(manifest.spec.hidden_size)
    connections = []
    for path in paths:
        connections.append(closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        connections[-1].connect(path)
    readers = [FrameReader(connection, MAX_MESSAGE_BYTES) for connection in connections]

    def sweep() -> None:
        for _ in range(manifest.spec.layer_count * len(BLOCK_KINDS)):
            for connection in connections:
                send_frame(connection, message)
            for reader in readers:
                reader.receive()

    return sweep


def _sized_message(hidden_size: int) -> bytes:
    """Return a message as long as a round's; request and response differ by a few bytes only."""
    response = shard_pb2.RoundsResponse(call_id=1)
    encode_tensor(np.zeros((1, hidden_size), np.float32), response.block_result.partial)
    return response.SerializeToString()


def _fork_node(slice_directory: Path, run_directory: Path, closing: ExitStack) -> dict[str, str]:
    """Start a node that listens on every transport and return its addresses."""
    run_directory.mkdir()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_node, args=(theirs, slice_directory, run_directory), daemon=True)
    process.start()
    theirs.close()
    closing.callback(process.join)
    closing.callback(process.kill)
    addresses: dict[str, str] = ours.recv()
    ours.close()
    return addresses


def _serve_node(connection: Connection, slice_directory: Path, run_directory: Path) -> None:
    end_with_parent()
    addresses = {FRAMES: f"{run_directory}/frames", DIRECT: f"{run_directory}/direct"}
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(addresses[FRAMES])
    listener.listen()
    servers: list[NodeServer | DirectServer] = []  # referenced for as long as this process lives
    for transport, listen in ((GRPC_UNIX, f"unix:{run_directory}/grpc"), (GRPC_TCP, "127.0.0.1:0")):
        node = ShardNode(NodeConfig(slice_directory=slice_directory, listen=listen, thread_count=1))
        node.executor = _FixedExecutor(node.manifest.spec.hidden_size)
        server = NodeServer(node.config, Serving(node.config, opened=node))
        server.start()
        addresses[transport] = server.address
        servers.append(server)
    servers.append(DirectServer(node, addresses[DIRECT]))
    threading.Thread(target=_echo, args=(listener, _sized_message(node.manifest.spec.hidden_size)), daemon=True).start()
    connection.send(addresses)
    threading.Event().wait()  # until it is killed


def _echo(listener: socket.socket, message: bytes) -> None:
    connection, _ = listener.accept()
    reader = FrameReader(connection, MAX_MESSAGE_BYTES)
    while reader.receive() is not None:
        send_frame(connection, message)
