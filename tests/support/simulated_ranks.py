"""Ranks that hold nothing but numbers, and object to what real ones would suffer from: for tests of schedules.

    ranks = SimulatedRanks([(4, 200), (0, 60)])       # bytes of a position, bytes of all, of each rank
    schedule.handle(RanksBack(ledger=ranks.ledger))
    ranks.run(schedule.next_run(most_rows), ended)

Covers: which sequences are open, how far each is computed, what its next rows must be. Does not cover: messages and
numbers (fake_ranks.py).
"""

from __future__ import annotations

from collections.abc import Collection

from coordinator.engine.batch import BatchPart
from coordinator.engine.ledger import KvLedger, RankRoom
from coordinator.engine.sampler import Sampler, SamplingParams
from coordinator.engine.schedule import Run
from coordinator.engine.sequence import Sequence

EOS = 2
SAMPLER = Sampler(SamplingParams(temperature=0), 0)
BOUNDLESS = 1 << 30


def make_sequence(number: int, prompt_length: int, answer_length: int) -> Sequence:
    """Return a sequence whose prompt tokens tell their positions."""
    return Sequence(
        sequence_id=number, prompt_ids=tuple(range(1000 * number, 1000 * number + prompt_length)),
        max_new_tokens=answer_length, eos_ids=frozenset({EOS}), sampler=SAMPLER,
    )  # fmt: skip


def make_ledger(ranks: list[tuple[int, int]]) -> KvLedger:
    """Return the empty book of some ranks."""
    return KvLedger([
        RankRoom(name=f"node {rank}", position_bytes=position_bytes, budget_bytes=budget_bytes)
        for rank, (position_bytes, budget_bytes) in enumerate(ranks)
    ])  # fmt: skip


class SimulatedRanks:
    """What ranks hold in one life of theirs; objects to what real ones would suffer from."""

    def __init__(self, ranks: list[tuple[int, int]]) -> None:
        self.positions = min((budget // each for each, budget in ranks if each), default=BOUNDLESS)
        self.ledger = make_ledger(ranks)
        self.open: dict[int, int] = {}
        """By sequence: how many positions are computed."""
        self._ever_opened: set[int] = set()
        self._closed: dict[int, int] = {}

    def run(self, run: Run, ended: Collection[int]) -> None:
        """Do what a run asks; fail on what no rank could do. Args: ended: of all sequences so far."""
        self._closed = {}
        for sequence_id in run.closes:
            assert sequence_id in ended, "a sequence that goes on is closed"
            self._closed[sequence_id] = self.open.pop(sequence_id)  # KeyError: closed twice, or never opened
        assert not self.open.keys() & ended, "a sequence has ended and is not closed by the next run"
        with_rows = {part.sequence.sequence_id for part in run.parts}
        assert len(with_rows) == len(run.parts), "a sequence has two parts"
        for sequence in run.opens:
            assert sequence.sequence_id in with_rows, "opened before it has rows"
            assert sequence.sequence_id not in self._ever_opened, "opened twice"
            self._ever_opened.add(sequence.sequence_id)
            self.open[sequence.sequence_id] = 0
        for part in run.parts:
            self._compute(part, ended)

    def unheard(self) -> None:
        """Forget that the last run's closes have come: it lost all rows before some rank had a message."""
        self.open.update(self._closed)

    def _compute(self, part: BatchPart, ended: Collection[int]) -> None:
        sequence = part.sequence
        computed = self.open[sequence.sequence_id]  # KeyError: it has rows and is not open
        assert sequence.sequence_id not in ended
        assert part.first_position == computed, "a position is computed twice, or left out"
        tokens = [*sequence.prompt_ids, *sequence.generated_ids]
        stop = computed + len(part.token_ids)
        assert list(part.token_ids) == tokens[computed:stop]
        assert part.token_ids
        assert part.logit_rows == ((len(part.token_ids) - 1,) if stop == len(tokens) else ())
        prompt_length = len(sequence.prompt_ids)
        if computed < prompt_length:
            assert stop <= prompt_length, "rows of a prompt and of an answer in one part"
            assert list(part.runs()) == [(computed, len(part.token_ids), prompt_length)]
        else:
            assert list(part.runs()) == [(position, 1, position + 1) for position in range(computed, stop)]
        assert stop <= sequence.position_capacity
        self.open[sequence.sequence_id] = stop
