"""Is a round's sum the same in whatever order answers come, and does its record tell what happened?

Covers: coordinator/ranks/{ranks,layer_pass,spoiled,round_record}.py over ranks without nodes.
Does not cover: sums themselves (tests/property/test_reduction.py), which node is slow (test_slow_nodes.py), true
transports (tests/contract).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from common.errors import KvBudgetExceeded, NodeFault, NodeLost, ProtocolError
from common.weights.slice_format import ATTENTION, FFN
from common.weights.stored_numbers import Floats
from coordinator.ranks.layer_pass import Passed, layer_pass
from coordinator.ranks.past_rounds import RoundTimes
from coordinator.ranks.ranks import LAYERS, Ranks
from coordinator.ranks.reduction import reduce_partials
from coordinator.ranks.round_record import PastRound, RankRound, RoundRecord
from coordinator.ranks.round_table import Rounds
from coordinator.ranks.slow_nodes import SlowNodeWatch
from coordinator.ranks.spoiled import not_finite, refusals
from coordinator.ranks.sweep import Sweep
from protos.shardmesh.v1 import shard_pb2
from tests.support.fake_mesh import FakeEnds, FakeMesh

MeshMaker = Callable[..., FakeMesh]
WIDTH = 16


@pytest.fixture
def make_mesh() -> Iterator[MeshMaker]:
    """Return what makes meshes that are closed at the end."""
    made: list[FakeMesh] = []

    def make(*arguments: int, **settings: object) -> FakeMesh:
        made.append(FakeMesh(*arguments, **settings))  # type: ignore[arg-type] # FakeMesh's own
        return made[-1]

    yield make
    for mesh in made:
        mesh.close()


def make_sweep(*sizes: int, sweep_id: int = 1) -> Sweep:
    """Return a first sweep of the sequences 1, 2, ... with so many rows each."""
    changes = shard_pb2.SequenceChanges()
    for number, size in enumerate(sizes, start=1):
        changes.opened.add(sequence_id=number, position_capacity=size)
    segments = [
        shard_pb2.Segment(sequence_id=number, first_position=0, row_count=size, rotary_length=size)
        for number, size in enumerate(sizes, start=1)
    ]
    return Sweep(sweep_id=sweep_id, segments=segments, changes=changes)


def make_rows(count: int) -> Floats:
    """Return rows as they come from an embedding."""
    return np.random.default_rng(count).standard_normal((count, WIDTH), np.float32)


def passed(mesh: FakeMesh, sweep: Sweep, records: list[RoundRecord] | None = None) -> tuple[Ranks, Passed]:
    """Run a sweep through all layers."""
    ranks = mesh.ranks()
    if records is not None:
        ranks.observers.append(records.extend)
    count = sum(segment.row_count for segment in sweep.segments)
    return ranks, layer_pass(ranks, FakeEnds(mesh.identity.spec).residual).run(sweep, make_rows(count))


def test_what_carries_rounds_is_shown_while_sessions_are_open(make_mesh: MeshMaker) -> None:
    """To whom they are open and until they are closed; a second close changes nothing for those that came after."""
    mesh = make_mesh(2)
    ranks = mesh.ranks()
    direct = ranks.series.transport.of("node1", "direct")
    assert (ranks.path.is_open, direct.value) == (True, 1)
    assert [carrier.name for carrier in ranks.path.carriers] == ["direct", "direct"]
    ranks.close()
    assert (ranks.path.is_open, direct.value) == (False, 0)
    direct.value = 1.0
    ranks.close()
    assert direct.value == 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no other system tells what a thread waits for a core")
def test_ranks_that_are_closed_hold_no_files_of_the_kernels(make_mesh: MeshMaker) -> None:
    """Though they are still held, as those of a node that was lost are until Python collects what holds itself."""

    def kept_files() -> int:
        return sum(path.readlink().name == "schedstat" for path in Path("/proc/self/fd").iterdir() if path.is_symlink())

    before, ranks = kept_files(), make_mesh(2).ranks()
    assert kept_files() > before
    ranks.close()
    assert kept_files() == before


def test_the_sum_is_by_rank_whatever_the_order_of_answers(make_mesh: MeshMaker) -> None:
    """Answers come last rank first, and all bits are those of answers that come first rank first."""
    forward, backward = make_mesh(3), make_mesh(3)
    for rank, client in enumerate(backward.clients):
        client.late_seconds = 3.0 - rank
    records: list[RoundRecord] = []
    _, one = passed(forward, make_sweep(2, 3))
    _, other = passed(backward, make_sweep(2, 3), records)
    assert np.array_equal(one.hidden, other.hidden)
    assert {tuple(part.rank for part in record.parts) for record in records} == {(2, 1, 0)}
    assert {record.last.rank for record in records} == {0}
    parts = [np.array([[each]], np.float32) for each in (1e8, -1e8, 1.0)]
    assert not np.array_equal(reduce_partials(parts), reduce_partials(parts[::-1])), "else the order would not matter"


def test_one_record_a_round_tells_what_it_was(make_mesh: MeshMaker) -> None:
    """Every observer hears of each round once: whose rows, which block, how much was sent, in order of time."""
    mesh, records = make_mesh(2), list[RoundRecord]()
    ranks, _ = passed(mesh, make_sweep(2, 3), records)
    assert [(record.layer, record.kind) for record in records] == [(0, ATTENTION), (0, FFN), (1, ATTENTION), (1, FFN)]
    assert ranks.times.round_count == len(records)
    for record in records:
        assert (record.sweep_id, record.sequence_ids, record.row_count, record.layer_count) == (1, (1, 2), 5, 1)
        assert record.started <= record.sent <= record.finished
        assert sorted(part.rank for part in record.parts) == [0, 1]
        arrivals = [part.arrived for part in record.parts]
        assert record.started <= arrivals[0] <= arrivals[1] <= record.finished
        assert record.slowest.rank == 1  # as the fake ranks say
        assert all(part.sent_bytes > 5 * WIDTH * 4 < part.received_bytes for part in record.parts)
        assert [part.compute_nanoseconds for part in sorted(record.parts)] == [1000, 2000]
    assert [len(client.rounds) for client in mesh.clients] == [4, 4]


def test_parts_lie_in_the_order_in_which_answers_came_even_where_they_are_taken_by_rank(make_mesh: MeshMaker) -> None:
    """Answers are looked at by rank, but the instants count: no wait is below 0, last is last."""
    mesh, records = make_mesh(3), list[RoundRecord]()
    ranks = mesh.ranks()
    ranks.observers.append(records.extend)
    for client, at in zip(mesh.clients, (3e9, 1e9, 2e9), strict=True):
        client.arrives_at = at
    ranks.run_block(ATTENTION, 0, make_sweep(2), make_rows(2))
    ranks.pass_on()
    (record,) = records
    assert [part.rank for part in record.parts] == [1, 2, 0]
    assert record.last.rank == 0
    waits = dict(record.waits())
    assert list(waits) == [1, 2, 0]
    assert waits[2] == waits[0] == 1e9
    assert all(seconds >= 0 for seconds in waits.values())


def test_a_wait_begins_when_the_last_answer_so_far_came(make_mesh: MeshMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that was there early, and is looked at late, does not make the next one look slow."""
    since: list[float] = []
    monkeypatch.setattr(SlowNodeWatch, "waiting_for", lambda watch, rank, key, at: since.append(at))
    mesh = make_mesh(3)
    ranks = mesh.ranks()
    for client, at in zip(mesh.clients, (3e9, 1e9, 2e9), strict=True):
        client.arrives_at = at
    ranks.run_block(ATTENTION, 0, make_sweep(2), make_rows(2))
    assert since[-2:] == [3e9, 3e9]


def test_waits_and_times_of_a_record_add_up() -> None:
    """Each answer is waited for from the one before on; what is neither kernels, weights nor sums is the wire's."""
    parts = tuple(
        RankRound(rank=rank, arrived=arrived, compute_nanoseconds=compute, tile_wait_nanoseconds=wait, sent_bytes=1,
                  received_bytes=1)
        for rank, arrived, compute, wait in ((0, 13.5, 10**8, 10**9), (1, 11.0, 10**9, 0))
    )  # fmt: skip
    rounds = Rounds([PastRound(make_sweep(1), FFN, 0, 1, 1, started=10.0, sent=10.5, finished=14.0, parts=parts)])
    (record,) = rounds
    assert list(record.waits()) == [(1, 1.0), (0, 2.5)]
    assert (record.last.rank, record.slowest.rank) == (0, 0)
    times = RoundTimes()
    times.observe(rounds)
    assert (times.round_count, times.total, times.reduction) == (1, 4.0, 0.5)
    assert (times.kernel, times.tile_wait) == (0.1, 1.0)
    assert times.wire == pytest.approx(4.0 - 0.5 - 0.1 - 1.0)


def test_ranks_hear_of_sequences_once_a_sweep_and_without_heads_too(make_mesh: MeshMaker) -> None:
    """Changes travel with a rank's first message of a sweep; a rank without heads takes part in FFN rounds only."""
    mesh = make_mesh(5)
    passed(mesh, make_sweep(2, 3))
    for client, share in zip(mesh.clients, mesh.identity.plan.shares, strict=True):
        assert set(client.open) == {1, 2}
        assert len(client.rounds) == (4 if share.query_head_count else 2)
        assert client.rounds[0].HasField("changes")
        assert not any(each.HasField("changes") for each in client.rounds if each.layer)  # type: ignore[union-attr]
    assert any(not share.query_head_count for share in mesh.identity.plan.shares)


def test_whole_layers_go_on_where_a_node_stopped(make_mesh: MeshMaker) -> None:
    """A node alone may answer fewer layers than it was asked for; the record says how many."""
    mesh, records = make_mesh(1), list[RoundRecord]()
    _, found = passed(mesh, make_sweep(4), records)
    assert [(record.kind, record.layer, record.layer_count) for record in records] == [(LAYERS, 0, 1), (LAYERS, 1, 1)]
    assert [each.HasField("changes") for each in mesh.clients[0].rounds] == [True, False]
    assert found.hidden.shape == (4, WIDTH)


@pytest.mark.parametrize("world_size", [1, 2])
def test_rows_of_spoiled_sequences_leave_half_way_and_the_rest_keep_their_bits(
    make_mesh: MeshMaker, world_size: int
) -> None:
    """One is refused at the first layer, one is not finite at the last: what is left is what it would be alone."""
    mesh = make_mesh(world_size)
    mesh.clients[-1].refuses, mesh.clients[0].spoils = {1}, {3: (FFN, 1)}
    ranks = mesh.ranks()
    pass_ = layer_pass(ranks, FakeEnds(mesh.identity.spec).residual)
    rows, sweep = make_rows(9), make_sweep(2, 3, 4)
    found = pass_.run(sweep, rows.copy())
    assert {number: type(error) for number, error in found.spoiled.items()} == {1: KvBudgetExceeded, 3: NodeFault}
    assert found.sweep.sequence_ids == (2,)
    alone = make_mesh(identity=mesh.identity)
    only = sweep.without([1, 3])
    other = layer_pass(alone.ranks(), FakeEnds(mesh.identity.spec).residual).run(only, rows[2:5].copy())
    assert np.array_equal(found.hidden, other.hidden)
    failures = mesh.series.rounds.node_failures
    assert [failures.of(f"node{len(mesh.clients) - 1}", "KV_BUDGET_EXCEEDED").value,
            failures.of("node0", "NODE_FAULT").value] == [1, 1]  # fmt: skip


def test_a_refusal_is_the_lowest_ranks_word() -> None:
    """Two ranks refuse a sequence: one error is told, with the name of the first."""
    failure = shard_pb2.Failure(status="RESOURCE_EXHAUSTED", reason="KV_BUDGET_EXCEEDED", message="no room")
    refused = [shard_pb2.SequenceRefused(sequence_id=7, failure=failure)]
    sweep, names = Sweep(sweep_id=1, segments=[shard_pb2.Segment(sequence_id=7, row_count=1)]), ["a", "b", "c"]
    (error,) = refusals(sweep, {2: refused, 1: refused}, names).values()
    assert isinstance(error, KvBudgetExceeded)
    assert str(error) == "b: no room"
    with pytest.raises(NodeFault, match="c refuses 2 sequences of 1"):
        refusals(sweep, {2: [*refused, *refused]}, names)
    with pytest.raises(NodeFault, match="b refuses sequence 8, which has no rows"):
        refusals(sweep, {1: [shard_pb2.SequenceRefused(sequence_id=8)]}, names)


def test_who_spoiled_a_sum_is_named_and_nobody_where_only_the_sum_is_not_finite() -> None:
    """Finite parts may add up to infinity, which is no rank's fault; large finite sums are nobody's."""
    sweep, names = make_sweep(1, 1), ["a", "b", "c"]
    fine, huge = np.ones((2, WIDTH), np.float32), np.ones((2, WIDTH), np.float32)
    assert not_finite(sweep, fine + fine, [0, 2], [fine, fine], names, "x") == {}
    huge[1] = 3e38
    with np.errstate(over="ignore"):
        infinite = huge + huge
    assert "adds up" in str(not_finite(sweep, infinite, [0, 2], [huge, huge], names, "the x block")[2])
    broken = fine.copy()
    broken[0, 3] = np.nan
    found = not_finite(sweep, fine + broken, [0, 2], [fine, broken], names, "the x block")
    assert list(found) == [1]
    assert str(found[1]).startswith("c computed numbers that are not finite in the x block")
    with pytest.raises(NodeFault, match="a computed"):
        not_finite(sweep, fine * np.float32(np.inf), [0, 2], [fine * np.float32(np.inf), fine], names, "x")


def test_a_rank_that_dies_in_a_round_ends_it(make_mesh: MeshMaker) -> None:
    """The error is the dead rank's, and counted once."""
    mesh = make_mesh(3)
    mesh.clients[1].dies_at = 3
    with pytest.raises(NodeLost, match="node 1 has died"):
        passed(mesh, make_sweep(2))
    assert mesh.series.rounds.node_failures.of("node1", "NODE_LOST").value == 1


def test_a_peer_that_answers_something_else_is_at_fault(make_mesh: MeshMaker) -> None:
    """A round about a sequence that was never opened is refused, and the session over."""
    mesh = make_mesh(2)
    sweep = make_sweep(2)
    with pytest.raises(ProtocolError, match="not open"):
        passed(mesh, Sweep(sweep_id=1, segments=sweep.segments))
