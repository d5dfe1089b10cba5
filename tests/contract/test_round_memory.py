"""Are rounds over shared memory the same as rounds in messages, and does the coordinator not trust nodes with it?

Covers: Ranks over direct nodes, its fallbacks, nodes that answer wrongly. Does not cover: what nodes refuse
(test_round_memory_distrust.py), the memory itself (tests/unit/test_memory_file.py), processes (tests/e2e).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import coordinator.ranks.round_memory
from common.errors import NodeFault, ShardmeshError, SliceMismatch
from common.weights.stored_numbers import Floats
from coordinator.ranks.ranks import Ranks
from coordinator.ranks.sweep import Sweep
from coordinator.ranks.transports.transport import Arrived
from protos.shardmesh.v1 import shard_pb2
from shardnode.sessions.session import Session
from tests.support.listening_nodes import ListeningNode, Transport
from tests.support.session_messages import random_rows
from tests.support.sliced_models import SlicedModel, slice_model
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")

ROWS = 256
"""Long enough to be shared: 256 rows of 64 numbers are 64 KiB."""
KINDS = ("attention", "ffn")


def mesh_over(sliced: SlicedModel, closing: ExitStack, transports: Sequence[Transport] = ("direct",)) -> Ranks:
    """Return an open mesh of a node for each transport with sequence 1 open; `closing` ends all."""
    clients = []
    for rank, transport in enumerate(transports):
        listening = closing.enter_context(ListeningNode(sliced, transport, rank=rank, kv_budget_bytes=1 << 24))
        clients.append(listening.connect())
    mesh = Ranks(clients=clients, identity=sliced.identity)
    closing.callback(mesh.close)
    mesh.open()
    mesh._tell(
        lambda request: request.change_sequences.opened.add(sequence_id=1, position_capacity=ROWS), "sequences_changed"
    )
    return mesh


def in_memory_ranks(mesh: Ranks) -> list[int]:
    """Return the ranks whose long rounds go through memory."""
    return [] if mesh.input_place((ROWS, mesh.identity.spec.hidden_size)) is None else list(mesh._memory.ranks())


def outputs(mesh: Ranks, row_counts: Sequence[int] = (ROWS,)) -> list[Floats]:
    """Return what both blocks of both layers answer to rows of each number."""
    found = []
    for row_count in row_counts:
        segments = [shard_pb2.Segment(sequence_id=1, row_count=row_count, rotary_length=row_count)]
        rows = random_rows(row_count, mesh.identity.spec.hidden_size)
        sweep = Sweep(sweep_id=1, segments=segments)
        for summed in [mesh.run_block(kind, layer, sweep, rows) for layer in (0, 1) for kind in KINDS]:
            for error in summed.spoiled.values():
                raise error
            found.append(summed.output)
    return found


def same(some: Sequence[Floats], others: Sequence[Floats]) -> bool:
    """Tell whether all tensors are equal, bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def test_memory_changes_no_bit(sliced: SlicedModel) -> None:
    """Long rounds go through memory, short ones do not, and gRPC gives the same numbers; earlier outputs stay."""
    with ExitStack() as closing:
        direct, grpc = mesh_over(sliced, closing), mesh_over(sliced, closing, ["grpc-unix"])
        assert (in_memory_ranks(direct), in_memory_ranks(grpc)) == ([0], [])
        counts = (ROWS, 3, ROWS - 1, 1, ROWS)
        assert same(outputs(direct, counts), outputs(grpc, counts))


def test_nodes_with_and_without_memory_take_part_in_the_same_rounds(tmp_path: Path) -> None:
    """A node of this host beside one elsewhere: the same bits as if both were here, or both elsewhere."""
    two = slice_model(tmp_path, world_size=2)
    transports: list[tuple[Transport, Transport]] = [
        ("direct", "grpc-unix"), ("grpc-unix", "direct"), ("direct", "direct"), ("grpc-unix", "grpc-unix"),
    ]  # fmt: skip
    found = []
    for pair in transports:
        with ExitStack() as closing:
            mesh = mesh_over(two, closing, pair)
            assert in_memory_ranks(mesh) == [rank for rank in (0, 1) if pair[rank] == "direct"]
            found.append(outputs(mesh, (ROWS, 3, ROWS)))
    assert all(same(found[0], others) for others in found[1:])


def test_a_message_in_memory_carries_no_bytes(sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round of 64 KiB is a message of a few bytes, there and back."""
    with ExitStack() as closing:
        mesh = mesh_over(sliced, closing)
        sizes = []
        submit, collect = mesh.clients[0].submit, mesh.clients[0].collect

        def counted_collect() -> Arrived:
            arrived = collect()
            sizes.append(arrived.byte_count)
            return arrived

        monkeypatch.setattr(mesh.clients[0], "submit", lambda message, files: (sizes.append(len(message)),
                                                                               submit(message, files)))  # fmt: skip
        monkeypatch.setattr(mesh.clients[0], "collect", counted_collect)
        outputs(mesh)
        assert len(sizes) == 8
        assert max(sizes) < 100


def test_without_memory_files_rounds_go_in_messages(sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """On systems that have none everything is as it is over gRPC."""
    with ExitStack() as closing:
        shared = outputs(mesh_over(sliced, closing))
        monkeypatch.setattr(coordinator.ranks.round_memory, "make_memory", lambda byte_count, peers_write: None)
        mesh = mesh_over(sliced, closing)
        assert in_memory_ranks(mesh) == []
        assert same(outputs(mesh), shared)


def test_a_node_that_does_not_take_the_offer_gets_messages(
    sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older node, or one whose system passes no descriptors."""
    with ExitStack() as closing:
        shared = outputs(mesh_over(sliced, closing))
        monkeypatch.setattr(Session, "take_files", lambda session, files: [os.close(file) for file in files])
        mesh = mesh_over(sliced, closing)
        assert in_memory_ranks(mesh) == []
        assert same(outputs(mesh), shared)


def test_rows_beyond_the_memory_go_in_messages(sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory has room for the longest sweep; whoever sends more still gets an answer."""
    with ExitStack() as closing:
        expected = outputs(mesh_over(sliced, closing))
        monkeypatch.setattr("coordinator.ranks.ranks.rows_per_sweep", lambda hidden_size: ROWS - 1)
        mesh = mesh_over(sliced, closing)
        assert in_memory_ranks(mesh) == []
        assert same(outputs(mesh), expected)


@pytest.mark.parametrize("ends", ["well", "in a failure"])
def test_nothing_is_left_when_a_session_ends(sliced: SlicedModel, ends: str) -> None:
    """Neither side keeps a descriptor or a mapping, however it ends; while it lasts each mapping has its own."""
    wait_until_others_have_let_go()
    with ExitStack() as closing:
        mesh = mesh_over(sliced, closing)
        outputs(mesh)
        # Two files, each in the node and in the coordinator of this process.
        assert (mapping_count(), descriptor_count()) == (4, 4)
        if ends == "in a failure":
            mesh.forget([1])
            with pytest.raises(ShardmeshError):
                outputs(mesh)
    del mesh
    assert (mapping_count(), descriptor_count()) == (0, 0)


def test_nothing_is_left_when_a_mesh_cannot_be_opened(sliced: SlicedModel) -> None:
    """A node that holds another model refuses; the files that were made for it are closed."""
    wait_until_others_have_let_go()
    with ListeningNode(sliced, "direct") as listening:
        identity = dataclasses.replace(sliced.identity, model_identity="another")
        mesh = Ranks(clients=[listening.connect()], identity=identity)
        with pytest.raises(SliceMismatch):
            mesh.open()
        del mesh
    assert (mapping_count(), descriptor_count()) == (0, 0)


def wait_until_others_have_let_go() -> None:
    """Wait for nodes of the test before, in a thread, and for what its objects hold that refer to each other."""
    gc.collect()
    wait_until(lambda: not mapping_count(), limit_seconds=30, what="nothing is left of other tests")


def mapping_count() -> int:
    """Return how many mappings of memory files this process has."""
    with open("/proc/self/maps") as maps:
        return sum("shardmesh-rows" in line for line in maps)


def descriptor_count() -> int:
    """Return how many descriptors of memory files this process has."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found += "shardmesh-rows" in os.readlink(f"/proc/self/fd/{descriptor}")
    return found


def answer_with(spoil: Callable[[shard_pb2.RoundsResponse], object], mesh: Ranks, patch: pytest.MonkeyPatch) -> None:
    """Have the node of `mesh` answer rounds with something else."""
    collect = mesh.clients[0].collect

    def spoiled() -> Arrived:
        arrived = collect()
        spoil(arrived.response)
        return arrived

    patch.setattr(mesh.clients[0], "collect", spoiled)


LIES: dict[str, tuple[int, Callable[[shard_pb2.BlockResult], object]]] = {
    "memory for a round that was sent in a message": (3, lambda result: (
        result.partial.ClearField("data"), setattr(result.partial, "is_in_memory", True))),
    "bytes as well": (ROWS, lambda result: setattr(result.partial, "data", b"\0" * 8)),
    "another shape": (ROWS, lambda result: result.partial.shape.__setitem__(0, 1 << 40)),
    "nothing": (ROWS, lambda result: result.ClearField("partial")),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_node_that_answers_wrongly_is_named(sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No answer makes the coordinator read what is no partial sum of this round."""
    row_count, spoil = LIES[name]
    with ExitStack() as closing:
        mesh = mesh_over(sliced, closing)
        answer_with(lambda response: spoil(response.block_result), mesh, monkeypatch)
        with pytest.raises(NodeFault, match=r"node 0.*no such tensor"):
            outputs(mesh, [row_count])


def test_numbers_in_memory_that_are_not_finite_are_named(sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's memory is looked through as its messages are."""
    with ExitStack() as closing:
        mesh = mesh_over(sliced, closing)
        answers = mesh._memory.answer_place(0, (ROWS, sliced.spec.hidden_size))
        assert answers is not None
        answer_with(lambda response: answers[:1].fill(float("nan")), mesh, monkeypatch)
        with pytest.raises(NodeFault, match=r"node 0.*not finite"):
            outputs(mesh)
