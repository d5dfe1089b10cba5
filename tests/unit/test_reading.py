"""Who waits for a long prompt hears how far it is: often enough, never backwards, and nothing of short ones?

Covers: coordinator/engine/reading.py alone and under answers over fake ranks. Does not cover: what is shown of it
(test_answer_screen.py), how it travels (tests/contract/test_asking_a_coordinator.py).
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from common.weights.slice_format import ATTENTION, FFN
from coordinator.answering.requests import Event, Reading, Started, Token
from coordinator.engine import reading
from coordinator.engine.batch import BatchPart
from coordinator.engine.schedule import Run
from coordinator.engine.sequence import Sequence
from coordinator.ranks.round_record import RankRound, RoundRecord
from tests.support.fake_mesh import make_sequence
from tests.support.fake_models import FakeModels, answering, make_ask

LAYERS = 10
PART = RankRound(0, 0.0, 0, 0, 0, 0)


def record(kind: str, layer: int, finished: float, layer_count: int = 1) -> RoundRecord:
    """Return a round that is over."""
    return RoundRecord(1, (1,), kind, layer, layer_count, 100, 0.0, 0.0, finished, (PART,), PART)


def run_of(*parts: tuple[Sequence, int, int]) -> Run:
    """Return a sweep. Args: parts: (sequence, first position, row count)."""
    return Run(closes=(), opens=(), parts=tuple(
        BatchPart(sequence=sequence, token_ids=(5,) * count, first_position=first, rotary_length=1)
        for sequence, first, count in parts
    ))  # fmt: skip


class Told:
    """A watch over prompts, and what it has told."""

    def __init__(self) -> None:
        self.watch = reading.Reading(LAYERS)
        self.counts: list[tuple[int, int]] = []
        self.watch.told = lambda sequence, count: self.counts.append((sequence.sequence_id, count))


def test_a_sweep_tells_of_whole_prompts_as_its_layers_go_by() -> None:
    """Half of a layer is its attention; a node alone runs several at once."""
    told = Told()
    told.watch.begin(run_of((make_sequence(1, 300, 5), 100, 200), (make_sequence(2, 50, 5), 0, 50)), 0.0)
    for kind, layer, finished in ((ATTENTION, 0, 1.0), (FFN, 0, 2.0), (ATTENTION, 4, 3.0)):
        told.watch.observe([record(kind, layer, finished)])
    told.watch.observe([record("layers", 6, 4.0, layer_count=4)])
    assert told.counts == [(1, 110), (2, 2), (1, 120), (2, 5), (1, 190), (2, 22), (1, 300), (2, 50)]


def test_it_is_told_twice_a_second_and_not_at_all_of_what_takes_less() -> None:
    """Who reads a line cannot read faster."""
    told, sequence = Told(), make_sequence(1, 300, 5)
    told.watch.begin(run_of((sequence, 0, 100)), 100.0)
    for tenth in range(1, 11):
        told.watch.observe([record(FFN, tenth - 1, 100 + tenth / 10)])
    assert told.counts == [(1, 50), (1, 100)]
    told.watch.begin(run_of((sequence, 100, 100)), 101.1)  # goes on, so the last word counts
    told.watch.observe([record(FFN, 4, 101.4)])
    assert told.counts == [(1, 50), (1, 100)]
    told.watch.observe([record(FFN, 4, 101.5)])
    assert told.counts[2:] == [(1, 150)]
    told.watch.begin(run_of(), 102.0)
    told.watch.begin(run_of((make_sequence(2, 300, 5), 0, 100)), 110.0)
    told.watch.observe([record(FFN, 0, 110.4)])
    assert len(told.counts) == 3


def test_tokens_and_answers_that_are_computed_again_are_no_prompts() -> None:
    """Whoever has text already waits for no prompt, though after a loss it is read once more."""
    told, answered, replayed = Told(), make_sequence(1, 3, 5), make_sequence(2, 300, 5)
    replayed.append(7)
    told.watch.begin(run_of((answered, 3, 1), (replayed, 0, 100)), 0.0)
    told.watch.observe([record(FFN, 5, 60.0)])
    assert told.counts == []


@pytest.mark.parametrize("world_size", [1, 2])
def test_who_asks_hears_how_far_a_long_prompt_is(monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
    """Between Started and the first token, ever more of it; with whole layers on one node and with parts on two."""
    monkeypatch.setattr(reading, "TELL_SECONDS", 0.0)
    with answering(FakeModels("m", world_size=world_size)) as answers:
        events: list[Event] = list(answers.ask(make_ask("AB" * 600, length=2)))
    kinds = [type(event) for event in events]
    assert kinds[0] is Started
    assert set(kinds[1 : kinds.index(Token)]) == {Reading}
    assert Reading not in kinds[kinds.index(Token) :]
    counts = [event.read_count for event in events if isinstance(event, Reading)]
    assert all(one <= other for one, other in pairwise(counts))
    assert (counts[0] <= 512, counts[-1]) == (True, 1200)
    assert {event.prompt_count for event in events if isinstance(event, Reading)} == {1200}


def test_who_asks_with_a_short_prompt_hears_of_no_reading() -> None:
    """It is read before anybody could be impatient."""
    with answering(FakeModels("m")) as answers:
        events = list(answers.ask(make_ask("HELLO", length=20)))
    assert not any(isinstance(event, Reading) for event in events)
