"""Does every request get its turn, its room and its end, whatever happens in whatever order?

Covers: coordinator/engine/schedule.py on the real ledger, batch and sequence, against simulated ranks that know what
they hold: arrivals, cancels, sweeps that end well or spoil sequences, ranks that are lost and come back with other
room. Does not cover: the ledger alone (test_ledger.py), rows of a sweep alone (test_batch.py), running it
(tests/unit/test_engine.py). Broken by hand in 29 ways: 28 are noticed here, the order of rows by test_batch.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.errors import KvBudgetExceeded, NodeFault, ProtocolError
from coordinator.engine.schedule import Arrived, Cancelled, RanksBack, RanksLost, Run, Schedule, State, SweepDone, Tell
from coordinator.engine.sequence import CANCELLED, ERROR, LENGTH, STOP, Sequence
from tests.support.simulated_ranks import BOUNDLESS, EOS, SimulatedRanks, make_ledger, make_sequence
from tests.support.thorough import examples

MOVES = {
    (State.WAITING, State.RUNNING), (State.RUNNING, State.REPLAYING), (State.REPLAYING, State.RUNNING),
    (State.WAITING, State.FINISHED), (State.RUNNING, State.FINISHED), (State.REPLAYING, State.FINISHED),
}  # fmt: skip
room = st.lists(st.tuples(st.integers(0, 3), st.integers(60, 400)), min_size=1, max_size=3)
"""(bytes of a position, bytes of all) of each rank."""
few_rows = st.integers(1, 12) | st.just(100)


class ScheduleMachine(RuleBasedStateMachine):
    """Random events against a schedule; simulated ranks and a book of what was told watch each one."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule()
        self.ranks: SimulatedRanks | None = None
        self.sequences: dict[int, Sequence] = {}
        self.answers: dict[int, list[int]] = {}
        self.ended: set[int] = set()
        self.states: dict[int, State] = {}
        self.run_under_way: Run | None = None

    @initialize(ranks=room)
    def the_ranks_are_there(self, ranks: list[tuple[int, int]]) -> None:
        """Most runs begin so."""
        self.ranks_come_back(ranks)

    @property
    def living(self) -> list[Sequence]:
        """Requests that have not ended, in order of arrival."""
        return [one for one in self.sequences.values() if one.sequence_id not in self.ended]

    def hear(self, tells: list[Tell], expected: list[tuple[int, int | None]]) -> None:
        """Take news, which must be the expected ones: (sequence, token) of each."""
        assert [(tell.sequence.sequence_id, tell.token_id) for tell in tells] == expected
        for tell in tells:
            sequence_id = tell.sequence.sequence_id
            assert sequence_id not in self.ended, "news after the end"
            if tell.token_id is not None:
                self.answers[sequence_id].append(tell.token_id)
            assert (tell.error is not None) is (tell.sequence.finish_reason == ERROR)
            if tell.sequence.finish_reason is not None:
                self.ended.add(sequence_id)

    def end_impossible(self, tells: list[Tell], sequences: list[Sequence]) -> None:
        """Take the ends of those that do not fit ranks which hold nothing else, and no other news."""
        most = BOUNDLESS if self.ranks is None else self.ranks.positions
        too_long = [one for one in sequences if one.position_capacity > most]
        self.hear(tells, [(one.sequence_id, None) for one in too_long])
        assert all(isinstance(tell.error, KvBudgetExceeded) for tell in tells)

    @rule(prompt_length=st.integers(1, 4) | st.integers(1, 40), answer_length=st.integers(1, 4) | st.integers(1, 60))
    def somebody_asks(self, prompt_length: int, answer_length: int) -> None:
        """At any time; what can never fit ends at once."""
        number = len(self.sequences) + 1
        sequence = self.sequences[number] = make_sequence(number, prompt_length, answer_length)
        self.answers[number], self.states[number] = [], State.WAITING
        self.end_impossible(self.schedule.handle(Arrived(sequence=sequence)), [sequence])

    @rule(which=st.integers(0, 3), reason=st.sampled_from([CANCELLED, STOP]))
    @precondition(lambda self: self.living)
    def somebody_cancels(self, which: int, reason: str) -> None:
        """One that waits or runs, while a sweep is under way too."""
        sequence = self.living[which % len(self.living)]
        tells = self.schedule.handle(Cancelled(sequence_id=sequence.sequence_id, finish_reason=reason))
        self.hear(tells, [(sequence.sequence_id, None)])
        assert sequence.finish_reason == reason

    @rule(number=st.integers(0, 30))
    def somebody_cancels_what_is_not_there(self, number: int) -> None:
        """One that has ended, or that nobody knows: nothing comes of it."""
        if number not in self.sequences or number in self.ended:
            self.hear(self.schedule.handle(Cancelled(sequence_id=number)), [])

    @rule(most_rows=few_rows | st.just(0))
    @precondition(lambda self: self.run_under_way is None)
    def a_sweep_begins(self, most_rows: int) -> None:
        """Whoever has room gets on, as far as rows allow; the ranks check the rest."""
        run = self.schedule.next_run(most_rows)
        if self.ranks is None:
            assert run is None
            return
        self.nobody_waits_who_fits()
        held = [one for one in self.living if self.ranks.ledger.holds(one.sequence_id)]
        if run is None:
            assert not (held and most_rows), "somebody has room and no turn"
            assert not self.ranks.open.keys() & self.ended, "a sequence has ended and is not closed"
            return
        rows = sum(len(part.token_ids) for part in run.parts)
        assert rows <= most_rows
        assert rows == most_rows or len(run.parts) == len(held), "a row was left free"
        assert run.parts or run.closes
        self.ranks.run(run, self.ended)
        self.run_under_way = run if run.parts else None

    @rule(ends=st.sets(st.integers(0, 3)), spoils=st.just(set[int]()) | st.sets(st.integers(0, 3)))
    @precondition(lambda self: self.run_under_way is not None)
    def a_sweep_ends(self, ends: set[int], spoils: set[int]) -> None:
        """Args: ends: of which parts an end token comes; spoils: which parts go wrong."""
        run, self.run_under_way = self.run_under_way, None
        assert run is not None
        assert self.ranks is not None
        due = [number for number, part in enumerate(run.parts) if part.logit_rows]
        spoiled = {part.sequence.sequence_id: NodeFault("spoiled") for number, part in enumerate(run.parts)
                   if number in spoils}  # fmt: skip
        predicted = {
            run.parts[number].sequence.sequence_id: EOS if number in ends else 1000 + len(run.parts) + number
            for number in due
        }  # of those that are spoiled or cancelled too
        expected: list[tuple[int, int | None]] = []
        for part in run.parts:
            sequence_id = part.sequence.sequence_id
            if sequence_id in self.ended:
                continue
            if sequence_id in spoiled:
                expected.append((sequence_id, None))
            elif sequence_id in predicted:
                expected.append((sequence_id, predicted[sequence_id]))
        if spoiled:  # what a sweep that lost its rows was to close may not have been heard
            self.ranks.unheard()
        self.hear(self.schedule.handle(SweepDone(predicted=predicted, spoiled=spoiled)), expected)

    @rule(count=st.integers(1, 3) | st.integers(1, 80), most_rows=few_rows)
    def sweeps_go_on(self, count: int, most_rows: int) -> None:
        """Many sweeps of which nothing special is to be told, so that answers become long."""
        for _ in range(count):
            if self.run_under_way is not None:
                self.a_sweep_ends(set(), set())
                self.the_book_is_right()
            self.a_sweep_begins(most_rows)
            if self.run_under_way is None:
                return

    @rule()
    def the_ranks_are_lost(self) -> None:
        """At any time, a second time too; a run under way is gone with them."""
        assert self.schedule.handle(RanksLost()) == []
        self.ranks = self.run_under_way = None

    @rule(ranks=room)
    @precondition(lambda self: self.ranks is None)
    def ranks_come_back(self, ranks: list[tuple[int, int]]) -> None:
        """The same or others, with more or less room."""
        self.ranks = SimulatedRanks(ranks)
        living = self.living
        self.end_impossible(self.schedule.handle(RanksBack(ledger=self.ranks.ledger)), living)

    @invariant()
    def the_book_is_right(self) -> None:
        """Exactly those with room are in the book; earlier ones before later ones; states only move as they may."""
        living = self.living
        assert self.schedule.sequences() == living
        held = [] if self.ranks is None else [one for one in living if self.ranks.ledger.holds(one.sequence_id)]
        assert held == living[: len(held)], "somebody has room while an earlier one waits"
        if self.ranks is not None:
            reserved = sum(one.position_capacity for one in held)
            assert self.ranks.ledger.reserved_positions == reserved <= self.ranks.positions
        for sequence in self.sequences.values():
            number = sequence.sequence_id
            before, now = self.states[number], self.schedule.state_of(number)
            assert before is now or (before, now) in MOVES, f"{before} became {now}"
            self.states[number] = now
            assert (now is State.FINISHED) is (number in self.ended)
            assert sequence.generated_ids == self.answers[number], "a token was not told, or told twice"
            if now is State.WAITING:
                assert sequence not in held
                assert not sequence.computed_count
            elif now is State.RUNNING:
                assert sequence in held
            elif now is State.REPLAYING:
                assert sequence.is_behind

    def nobody_waits_who_fits(self) -> None:
        assert self.ranks is not None
        waiting = [one for one in self.living if not self.ranks.ledger.holds(one.sequence_id)]
        if waiting:
            assert self.ranks.ledger.reserved_positions + waiting[0].position_capacity > self.ranks.positions

    def teardown(self) -> None:
        """From now on nobody interferes: all that live end in as many sweeps as they have rows, and leave nothing."""
        if self.ranks is None:
            self.ranks_come_back([(1, 200)])
        assert self.ranks is not None
        left = sum(one.position_capacity for one in self.living) + 2
        while self.living or self.run_under_way is not None:
            assert left, "somebody starves"
            left -= 1
            self.sweeps_go_on(1, 7)
        for sequence in self.sequences.values():
            assert sequence.finish_reason is not None
            if sequence.finish_reason == LENGTH:
                assert len(sequence.generated_ids) == sequence.max_new_tokens
        if self.run_under_way is None:
            self.a_sweep_begins(0)
        assert self.schedule.next_run(9) is None
        assert self.ranks.open == {}, "something is left open on the ranks"
        assert self.ranks.ledger.reserved_positions == 0
        self.the_book_is_right()


TestScheduleMachine = ScheduleMachine.TestCase
TestScheduleMachine.settings = settings(max_examples=examples(200), stateful_step_count=40, deadline=None)


def running(*sequences: Sequence) -> Schedule:
    """Return a schedule with room for all of them, in its first sweep."""
    schedule = Schedule()
    schedule.handle(RanksBack(ledger=make_ledger([(1, 1 << 20)])))
    for sequence in sequences:
        schedule.handle(Arrived(sequence=sequence))
    assert schedule.next_run(512) is not None
    return schedule


def test_what_cannot_be_now_is_refused() -> None:
    """A run begins when none is under way, ends once, and nobody arrives twice."""
    sequence = make_sequence(1, 3, 3)
    schedule = running(sequence)
    with pytest.raises(ProtocolError, match="under way"):
        schedule.next_run(5)
    with pytest.raises(ProtocolError, match="there already"):
        schedule.handle(Arrived(sequence=sequence))
    schedule.handle(RanksLost())
    with pytest.raises(ProtocolError, match="no sweep"):
        schedule.handle(SweepDone(predicted={1: 5}))


@given(prompt_length=st.integers(1, 50), answer_length=st.integers(2, 120), most_rows=st.integers(1, 200))
def test_a_replay_computes_the_rest_sweep_by_sweep_and_tells_nothing_twice(
    prompt_length: int, answer_length: int, most_rows: int
) -> None:
    """After ranks were lost the prompt is read again, then the answer, a sweep of rows at once, each as it was."""
    sequence = make_sequence(1, prompt_length, answer_length + 1)
    schedule = running(sequence)
    schedule.handle(RanksLost())
    sequence.generated_ids += range(50_000, 50_000 + answer_length)
    ranks = SimulatedRanks([(1, 1 << 20)])
    schedule.handle(RanksBack(ledger=ranks.ledger))
    sizes = []
    while True:
        assert schedule.state_of(1) is (State.RUNNING if sizes and not sequence.is_behind else State.REPLAYING)
        run = schedule.next_run(most_rows)
        assert run is not None
        ranks.run(run, set())
        (part,) = run.parts
        if part.first_position >= prompt_length:
            sizes.append(len(part.token_ids))
        if part.logit_rows:
            break
        assert schedule.handle(SweepDone(predicted={})) == []
    whole, rest = divmod(answer_length, most_rows)
    assert sizes == [most_rows] * whole + [rest] * bool(rest)
    (told,) = schedule.handle(SweepDone(predicted={1: 7}))
    assert (told.token_id, sequence.finish_reason) == (7, LENGTH)
