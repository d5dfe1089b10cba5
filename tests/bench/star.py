"""What does a round cost when nobody computes: four node processes that answer at once, over each transport?

Covers: our own servers, sessions, clients and mesh, with an executor that returns a fixed partial sum (star_routes.py);
below them bare sockets (star_sockets.py); all on this machine, or each process on a host of its own.
Does not cover: comparing (star_floor.py, speed.py). `open_star` runs inside a worker (workers.py).
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from common.compute.backend import NATIVE, backend_named
from common.compute.residual import LayerVectors, Residual
from common.machine.operating_system import end_with_parent
from common.model.model_spec import ModelSpec
from common.weights.manifest import SliceManifest, read_manifest
from common.weights.slice_format import BLOCK_KINDS
from coordinator.ranks.identity import RanksIdentity
from coordinator.ranks.layer_pass import layer_pass
from coordinator.ranks.ranks import Ranks
from coordinator.ranks.sweep import Sweep
from coordinator.ranks.transports.transport import ShardClient
from protos.shardmesh.v1 import shard_pb2
from shardnode.config import NodeConfig
from shardnode.work.executor import Executor
from shardnode.work.slice_at_work import ShardNode
from tests.bench.contenders import Turn, differences, processor_seconds, subtract
from tests.bench.star_routes import DIRECT, FRAMES_TLS, GRPC_TCP, GRPC_TLS, GRPC_UNIX, ROUTES
from tests.bench.star_seats import CoordinatorSeat, NodeSeat, Place
from tests.bench.star_sockets import BARE, FRAMES, TCP, TLS
from tests.support.mesh_identities import MeshIdentities
from tests.support.network_hosts import enter_network

TRANSPORTS = (FRAMES, DIRECT, GRPC_UNIX, GRPC_TCP, GRPC_TLS, FRAMES_TLS, TCP, TLS)
LINKED_TRANSPORTS = tuple(name for name in TRANSPORTS if name not in (FRAMES, DIRECT, GRPC_UNIX, GRPC_TCP))
"""Those that reach another host."""
SEQUENCE_ID = 1
RunTurn = Callable[[str, int], Turn]
"""Runs the rounds of so many tokens over one transport."""


class _Node(NamedTuple):
    process_id: int
    addresses: dict[str, str]
    """By transport."""


class _EmptyExecutor(Executor):
    """Answers at once: its blocks have no tiles, as those of a rank that holds no head."""

    def __init__(self, node: ShardNode) -> None:
        super().__init__(node.manifest, node.tiles, backend_named(NATIVE))
        self._layouts = {
            kind: tuple(replace(layout, tiles=()) for layout in own) for kind, own in self._layouts.items()
        }


@contextmanager
def open_star(
    split_directory: Path, world_size: int, transports: Sequence[str] = TRANSPORTS, places: Sequence[Place] = ()
) -> Iterator[RunTurn]:
    """Fork a node per rank, connect over every transport, and give the function that runs a transport's rounds.

    Args: places: the coordinator's and each node's; none: all on this machine.
    """
    here, *of_nodes = places or [Place()] * (1 + world_size)
    manifest, identities = read_manifest(split_directory / "node0"), MeshIdentities("star")
    with tempfile.TemporaryDirectory(prefix="shardmesh-bench-") as run_directory, ExitStack() as closing:
        # Forked before this process has any thread of gRPC, as shardnode/pool.py does.
        nodes = []
        for rank, place in enumerate(of_nodes):
            name, slice_directory = f"node{rank}", split_directory / f"node{rank}"
            seat = NodeSeat(
                name=name, address=place.address, run_directory=Path(run_directory) / name,
                hidden_size=manifest.spec.hidden_size, identity=identities.node(name),
                open_node=partial(_open_node, slice_directory),
            )  # fmt: skip
            nodes.append(_fork_node(seat, place, transports, closing))
        if here.network:
            enter_network(here.network)
        coordinator = CoordinatorSeat(
            mesh_name=identities.mesh, node_names=tuple(f"node{rank}" for rank in range(world_size)),
            run_directory=Path(run_directory), identity=identities.coordinator(),
        )  # fmt: skip
        sweeps = {
            name: _connect(name, [node.addresses[name] for node in nodes], coordinator, manifest, closing)
            for name in transports
        }
        yield partial(_run, sweeps, [psutil.Process(node.process_id) for node in nodes])


def _run(
    sweeps: dict[str, Callable[[], None]], nodes: Sequence[psutil.Process], transport: str, token_count: int
) -> Turn:
    sweep, before, own = sweeps[transport], processor_seconds(nodes), time.process_time()
    stamps = [time.perf_counter()]
    for _ in range(token_count):
        sweep()
        stamps.append(time.perf_counter())
    own = time.process_time() - own  # in nanoseconds, where the others are in hundredths of a second
    processor = {**subtract(processor_seconds(nodes), before), "here": own}
    return Turn(token_ids=(), seconds_per_token=differences(stamps), processor=processor)


def _connect(
    transport: str, addresses: Sequence[str], seat: CoordinatorSeat, manifest: SliceManifest, closing: ExitStack
) -> Callable[[], None]:
    """Return the function that runs the rounds of one token."""
    if transport in BARE:
        rounds = BARE[transport].connect(addresses, seat, manifest.spec.hidden_size, closing)
        return partial(rounds, round_count(manifest))
    clients = ROUTES[transport].connect(addresses, seat, closing)
    for client in clients:
        closing.callback(client.close)
    return _mesh_sweep(clients, manifest, closing)


def round_count(manifest: SliceManifest) -> int:
    """Return how many rounds a token takes."""
    return manifest.spec.layer_count * len(BLOCK_KINDS)


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
    passes = layer_pass(ranks, _residual(manifest.spec))
    rows = np.zeros((1, manifest.spec.hidden_size), np.float32)
    sweep_ids = itertools.count(1)

    def sweep() -> None:
        number = next(sweep_ids)
        passes.run(Sweep(sweep_id=number, segments=segments, changes=changes if number == 1 else None), rows)

    return sweep


def _residual(spec: ModelSpec) -> Residual:
    """Return what lies between blocks: steps that cost what any model's do."""
    vectors = LayerVectors(norms=[np.ones(spec.hidden_size, np.float32)] * spec.layer_count, late_biases=None)
    return Residual(blocks=dict.fromkeys(BLOCK_KINDS, vectors), norm_epsilon=1e-5)


def _fork_node(seat: NodeSeat, place: Place, transports: Sequence[str], closing: ExitStack) -> _Node:
    """Start a node that listens on every transport and return its addresses."""
    seat.run_directory.mkdir()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_node, args=(theirs, seat, place, transports), daemon=True)
    process.start()
    theirs.close()
    closing.callback(process.join)
    closing.callback(process.kill)
    addresses: dict[str, str] = ours.recv()
    ours.close()
    return _Node(process.pid or 0, addresses)


def _serve_node(connection: Connection, seat: NodeSeat, place: Place, transports: Sequence[str]) -> None:
    end_with_parent()
    logging.getLogger("shardnode").setLevel(logging.ERROR)  # its one sequence never ends, and it would say so
    if place.network:
        enter_network(place.network)
    addresses, kept = {}, []
    for name in transports:
        if name in BARE:
            addresses[name] = BARE[name].serve(seat)
        else:
            addresses[name], server = ROUTES[name].serve(seat)
            kept.append(server)  # referenced for as long as this process lives
    connection.send(addresses)
    threading.Event().wait()  # until it is killed


def _open_node(slice_directory: Path, listen: str) -> ShardNode:
    node = ShardNode(NodeConfig(slice_directory=slice_directory, listen=listen, thread_count=1))
    node.executor = _EmptyExecutor(node)
    return node
