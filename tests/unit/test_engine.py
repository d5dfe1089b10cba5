"""Does the engine give each sequence the tokens it would have alone, whatever befalls the others, and wait for nobody?

Covers: coordinator/engine/engine.py over ranks without nodes (tests/support/fake_ranks.py), on one rank and on several.
Does not cover: whose turn it is (tests/property/test_schedule.py), rounds (test_ranks.py), requests (test_answers.py),
true nodes (tests/golden).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from common.errors import KvBudgetExceeded, NodeFault, NodeLost, PromptTooLong
from common.weights.stored_numbers import Floats
from coordinator.engine.engine import Engine
from coordinator.engine.sampler import Sampler, SamplingParams
from coordinator.engine.schedule import RanksLost, Tell
from coordinator.engine.sequence import ERROR, LENGTH, Sequence
from tests.support.fake_mesh import FakeMesh, fake_identity, make_sequence, run_all, solo_answer

SIZES = [(5, 9), (1, 3), (12, 1), (3, 14)]
"""(prompt length, answer length) of the sequences 1 to 4."""
MeshMaker = Callable[..., FakeMesh]


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


def sequences() -> list[Sequence]:
    """Return four sequences of different lengths."""
    return [make_sequence(number, *sizes) for number, sizes in enumerate(SIZES, start=1)]


def assert_as_alone(mesh: FakeMesh, ran: list[Sequence]) -> None:
    """Fail where a sequence has not the tokens that it has on ranks of its own."""
    for sequence in ran:
        size = len(sequence.prompt_ids), sequence.max_new_tokens
        assert sequence.generated_ids == solo_answer(mesh.identity, sequence.sequence_id, *size)
        assert sequence.finish_reason == LENGTH


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_sequences_in_the_same_sweeps_have_the_tokens_of_each_alone(make_mesh: MeshMaker, world_size: int) -> None:
    """Company changes nothing, with a node that runs whole layers as with several that are added up."""
    mesh, ran = make_mesh(world_size), sequences()
    assert run_all(mesh.engine(), ran) == {}
    assert_as_alone(mesh, ran)
    assert len({tuple(one.generated_ids) for one in ran}) == len(ran)
    assert any(len(set(one.generated_ids)) > 3 for one in ran), "answers that are one token say nothing"


@pytest.mark.parametrize("world_size", [1, 2])
def test_between_two_sweeps_no_node_is_waited_for(make_mesh: MeshMaker, world_size: int) -> None:
    """Twenty sequences come and go one after another, and every message but the last belongs to a round."""
    mesh = make_mesh(world_size)
    engine = mesh.engine()
    ran = [make_sequence(number, 1 + number % 4, 1 + number % 5) for number in range(1, 21)]
    for sequence in ran:
        engine.add(sequence)
        engine.step()
    while engine.schedule.sequences():
        engine.step()
    messages = dict(mesh.clients[0].messages)
    rounds = messages.pop("run_block" if world_size > 1 else "run_layers")
    assert rounds == engine.times.sweep_count * mesh.identity.spec.layer_count * (2 if world_size > 1 else 1)
    assert messages == {"open_session": 1, **({"load_norms": 1} if world_size == 1 else {})}
    assert mesh.waits_between_rounds == []
    engine.step()  # nothing is left to run: a message of its own, which nobody waits for
    assert [client.messages["change_sequences"] for client in mesh.clients] == [1] * world_size
    assert mesh.waits_between_rounds == []
    assert [client.open for client in mesh.clients] == [{}] * world_size
    engine.step()
    assert [client.messages["change_sequences"] for client in mesh.clients] == [1] * world_size
    assert_as_alone(mesh, ran)


def test_the_answers_to_what_nobody_waited_for_do_not_confuse_the_next_round(make_mesh: MeshMaker) -> None:
    """A message between sweeps is answered before the next round is, and its answer passed over."""
    mesh, ran = make_mesh(2), sequences()
    engine = mesh.engine()
    for sequence in ran:
        run_all(engine, [sequence])
        engine.step()
    assert_as_alone(mesh, ran)
    assert mesh.waits_between_rounds == []
    engine.settle()
    assert mesh.waits_between_rounds == ["change_sequences"] * 4


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_a_sequence_that_a_rank_refuses_ends_alone(make_mesh: MeshMaker, world_size: int) -> None:
    """The last rank, which may be one without heads, has no room for one: it ends so, others go on."""
    mesh, ran = make_mesh(world_size), sequences()
    mesh.clients[-1].refuses = {2}
    engine = mesh.engine()
    errors = run_all(engine, ran)
    assert list(errors) == [2]
    assert isinstance(errors[2], KvBudgetExceeded)
    assert mesh.clients[-1].name in str(errors[2])
    assert (ran[1].finish_reason, ran[1].generated_ids) == (ERROR, [])
    assert_as_alone(mesh, [ran[0], ran[2], ran[3]])
    engine.settle()
    assert [client.open for client in mesh.clients] == [{}] * world_size


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_sweep_whose_sequences_are_all_refused_leaves_the_ranks_usable(make_mesh: MeshMaker, world_size: int) -> None:
    """Different ranks refuse different ones, until no row is left; what was to be closed then is closed after it."""
    mesh = make_mesh(world_size)
    engine = mesh.engine()
    first = make_sequence(1, 3, 4)
    run_all(engine, [first])
    mesh.clients[0].refuses, mesh.clients[-1].refuses = {2}, {2, 3}
    mesh.clients[0].refuses |= {3} if world_size == 1 else set()
    assert set(run_all(engine, [make_sequence(2, 3, 4), make_sequence(3, 3, 4)])) == {2, 3}
    last = make_sequence(4, 3, 4)
    assert run_all(engine, [last]) == {}
    assert_as_alone(mesh, [first, last])
    engine.settle()
    assert [client.open for client in mesh.clients] == [{}] * world_size


def test_a_rank_without_heads_hears_what_a_refused_sweep_was_to_close(make_mesh: MeshMaker) -> None:
    """It hears of sequences with layer 0's FFN, which a sweep without rows never reaches; the next one tells it."""
    mesh = make_mesh(5)
    engine = mesh.engine()
    headless = [client for client, share in zip(mesh.clients, mesh.identity.plan.shares, strict=True)
                if not share.query_head_count]  # fmt: skip
    assert headless
    first = make_sequence(1, 3, 2)
    run_all(engine, [first])
    assert all(set(client.open) == {1} for client in headless)
    mesh.clients[0].refuses = {2}
    assert set(run_all(engine, [make_sequence(2, 3, 2)])) == {2}
    engine.settle()
    assert [client.open for client in mesh.clients] == [{}] * 5
    assert_as_alone(mesh, [first])


@pytest.mark.parametrize("block", [("attention", 0), ("ffn", 1)])
@pytest.mark.parametrize("world_size", [1, 2])
def test_numbers_that_are_not_finite_end_their_own_sequence(
    make_mesh: MeshMaker, world_size: int, block: tuple[str, int]
) -> None:
    """Rows of one sequence are spoiled in one block: the node is named, the others have their tokens."""
    mesh, ran = make_mesh(world_size), sequences()
    mesh.clients[-1].spoils = {3: block}
    errors = run_all(mesh.engine(), ran)
    assert list(errors) == [3]
    assert isinstance(errors[3], NodeFault)
    assert mesh.clients[-1].name in str(errors[3])
    assert_as_alone(mesh, [ran[0], ran[1], ran[3]])


def test_numbers_that_are_not_finite_everywhere_are_the_ranks_fault(make_mesh: MeshMaker) -> None:
    """With nothing left to go on with, it is no request's misfortune but a broken node."""
    mesh = make_mesh(2)
    mesh.clients[1].spoils = {1: ("ffn", 0), 2: ("ffn", 0)}
    with pytest.raises(NodeFault, match="node 1 computed"):
        run_all(mesh.engine(), [make_sequence(1, 3, 3), make_sequence(2, 3, 3)])


class Raising(Sampler):
    """A sampler that raises at its n-th choice."""

    def __init__(self, left: int) -> None:
        super().__init__(SamplingParams(temperature=0), 0)
        self._left = left

    def sample(self, logits: Floats, position: int) -> int:
        """See Sampler."""
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("no choice")
        return int(logits.argmax())


def test_a_sampler_that_raises_ends_its_own_sequence(make_mesh: MeshMaker) -> None:
    """Its tokens so far stay, the others' are as if it had never been there."""
    mesh, ran = make_mesh(2), sequences()
    ran[3] = make_sequence(4, *SIZES[3], sampler=Raising(2))
    engine = mesh.engine()
    errors = run_all(engine, ran)
    assert str(errors[4]) == "no choice"
    assert len(ran[3].generated_ids) == 2
    assert_as_alone(mesh, ran[:3])
    engine.settle()
    assert [client.open for client in mesh.clients] == [{}, {}]


@pytest.mark.parametrize("dies_at", [2, 3, 9, 14, 33])
def test_ranks_lost_and_back_change_no_token(make_mesh: MeshMaker, dies_at: int) -> None:
    """Whenever a rank dies, the schedule goes on with others, and nothing is told twice."""
    first, ran = make_mesh(2), sequences()
    first.clients[1].dies_at = dies_at
    engine: Engine = first.engine()
    told: list[Tell] = []
    with pytest.raises(NodeLost, match="node 1"):
        run_all(engine, ran)
    first.close()
    engine.schedule.handle(RanksLost())
    again_mesh = make_mesh(identity=first.identity)
    again = again_mesh.engine(engine.schedule)
    assert again.impossible == []
    before = {one.sequence_id: len(one.generated_ids) for one in engine.schedule.sequences()}
    while engine.schedule.sequences():
        told += again.step()
    assert_as_alone(first, ran)
    for segment in (each for asked in again_mesh.clients[0].rounds for each in asked.segments):
        prompt_length = SIZES[segment.sequence_id - 1][0]
        if segment.first_position >= prompt_length:  # a row of an answer, replayed or not, is what it was
            assert (segment.row_count, segment.rotary_length) == (1, segment.first_position + 1)
        else:
            assert segment.rotary_length == prompt_length
    for number, count in before.items():
        tokens = [tell.token_id for tell in told if tell.sequence.sequence_id == number]
        assert tokens == ran[number - 1].generated_ids[count:]


def test_what_other_ranks_have_no_room_for_ends_when_they_come(make_mesh: MeshMaker) -> None:
    """Less room than before: who fits goes on, whoever does not is told so."""
    first, ran = make_mesh(2), [make_sequence(1, 5, 30), make_sequence(2, 5, 10)]
    engine = first.engine()
    for sequence in ran:
        engine.add(sequence)
    engine.step()
    engine.schedule.handle(RanksLost())
    position_bytes = first.identity.spec.kv_bytes(2, 1)
    again = make_mesh(identity=first.identity, kv_budget_bytes=20 * position_bytes).engine(engine.schedule)
    assert [(tell.sequence, type(tell.error)) for tell in again.impossible] == [(ran[0], KvBudgetExceeded)]
    assert run_all(again, []) == {}
    assert_as_alone(first, ran[1:])


def test_more_than_fits_waits_for_room_and_nobody_is_refused(make_mesh: MeshMaker) -> None:
    """Ranks with room for one at a time run five after another: admission never asks what a rank would refuse."""
    position_bytes = fake_identity(2).spec.kv_bytes(2, 1)
    mesh = make_mesh(2, kv_budget_bytes=12 * position_bytes)
    ran = [make_sequence(number, 6, 5) for number in range(1, 6)]
    assert run_all(mesh.engine(), ran) == {}
    assert_as_alone(mesh, ran)


def test_what_can_never_run_is_refused_when_it_is_added(make_mesh: MeshMaker) -> None:
    """Too long for the model's context, or for a rank's room: the sequence leaves no trace."""
    identity = fake_identity(2, context=20)
    engine = make_mesh(identity=identity, kv_budget_bytes=10 * identity.spec.kv_bytes(2, 1)).engine()
    with pytest.raises(PromptTooLong):
        engine.add(make_sequence(1, 10, 12))
    with pytest.raises(KvBudgetExceeded, match="node 0"):
        engine.add(make_sequence(2, 8, 4))
    assert engine.schedule.sequences() == []
    assert engine.step() == []
