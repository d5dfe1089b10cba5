"""Does what goes wrong for one request end that one, and leave three others' tokens and pace as they are?

Covers: a sequence that a node refuses, numbers of one that are not finite, a prompt that is too long, one that cannot
be prepared, a caller that goes away, a sampler that raises; over real nodes. Does not cover: callers over
gRPC (test_asking_a_coordinator.py), sequences that come and go in peace (tests/golden/test_batching.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from common.errors import InputError, KvBudgetExceeded, NodeFault, PromptTooLong
from common.weights.stored_numbers import Floats
from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.answer_stream import AnswerStream
from coordinator.answering.answers import Answers
from coordinator.answering.requests import Ask, Failed, Finished, Token
from coordinator.engine.sampler import Sampler
from coordinator.models.local_model import LocalModel
from tests.support.asking import GREEDY, Reopening, asked, tokens
from tests.support.mesh import run_options, sliced, thread_nodes
from tests.support.tiny_checkpoint import write_tiny_checkpoint

PROMPTS = ((5, 6, 7), (9, 8, 7, 6, 5), (40, 41))
LENGTH = 40
BESIDE = 12
"""Tokens that each of the three has when the fourth comes."""
MOST_SWEEPS = 2
"""Between two tokens: the sweep that makes the second, and one that is the fourth's."""


@dataclass
class Company:
    """Three answers under way, and what counts their sweeps."""

    answers: Answers
    source: Reopening
    model: LocalModel
    streams: list[AnswerStream] = field(default_factory=list)
    sweeps: list[list[int]] = field(default_factory=list)
    """Of each stream: in which sweep each token came."""

    def start(self) -> list[Iterator[Any]]:
        """Ask three times, and return the three once each has BESIDE tokens."""
        running = []
        for prompt in PROMPTS:
            stream = asked(self.answers, self.model, prompt, length=LENGTH)
            self.sweeps.append([])
            self._watch(stream, self.sweeps[-1])
            self.streams.append(stream)
            running.append(iter(stream))
        self.token_ids: list[list[int]] = [[] for _ in PROMPTS]
        for events, found in zip(running, self.token_ids, strict=True):
            while len(found) < BESIDE:
                event = next(events)
                if isinstance(event, Token):
                    found.append(event.token_id)
        return running

    def finish(self, running: list[Iterator[Any]]) -> None:
        """Read the rest of the three."""
        for events, found in zip(running, self.token_ids, strict=True):
            found += tokens(events)

    def _watch(self, stream: AnswerStream, sweeps: list[int]) -> None:
        put = stream.put

        def noted(news: Any) -> None:
            if isinstance(news, int):
                sweeps.append(self.source.opened[-1].engine.times.sweep_count)
            put(news)

        stream.put = noted


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    """Return a tiny model cut for two nodes."""
    directory = tmp_path_factory.mktemp("company")
    with sliced(write_tiny_checkpoint(directory / "model"), directory / "slices", world_size=2) as made:
        yield made


@pytest.fixture(scope="module")
def alone(model: LocalModel) -> list[list[int]]:
    """Return each answer when it has the mesh to itself."""
    with thread_nodes(model, memory_window=2) as nodes:
        run = run_options(2, nodes.addresses)
        with closing(Answers(Reopening(model, run, AnswerSeries()), AnswerSeries())) as answers:
            return [tokens(asked(answers, model, prompt, length=LENGTH)) for prompt in PROMPTS]


@pytest.fixture(params=["direct", "grpc"])
def company(model: LocalModel, request: pytest.FixtureRequest) -> Iterator[Company]:
    """Return a mesh of two nodes that nobody uses yet; over each transport."""
    with thread_nodes(model, memory_window=2, transport=request.param) as nodes:
        source = Reopening(model, run_options(2, nodes.addresses), AnswerSeries())
        with closing(Answers(source, AnswerSeries())) as answers:
            made = Company(answers=answers, source=source, model=model)
            made.nodes = nodes.nodes  # type: ignore[attr-defined] # for the one test that spoils them
            yield made


class Raising(Sampler):
    """Chooses three tokens and then fails."""

    count = 0

    def sample(self, logits: Floats, position: int) -> int:
        """See Sampler."""
        self.count += 1
        if self.count > 3:
            raise ZeroDivisionError("a sampler of ours has a bug")
        return super().sample(logits, position)


def refused_by_a_node(company: Company) -> list[Any]:
    """Ask for what one node has no room for, of which the coordinator knows nothing: another one uses it too."""
    cache = company.nodes[1]._serving.current().kv_cache  # type: ignore[attr-defined]
    cache.budget_bytes, budget_bytes = cache.reserved_bytes, cache.budget_bytes
    try:
        return list(asked(company.answers, company.model, (1, 2), length=30))
    finally:
        cache.budget_bytes = budget_bytes


def too_long(company: Company) -> list[Any]:
    """Ask for more than the model's context."""
    return list(asked(company.answers, company.model, (1, 2), length=1 << 20))


def unprepared(company: Company) -> list[Any]:
    """Ask for what cannot be turned into tokens."""
    return list(company.answers.ask(Ask(sampling=GREEDY, seed=0, most_tokens=5, prompt="x", model="another")))


def raising(company: Company) -> list[Any]:
    """Ask with a sampler that raises."""
    return list(asked(company.answers, company.model, (1, 2), length=30, sampler=Raising(GREEDY, 0)))


def cancelled(company: Company) -> list[Any]:
    """Ask, read four tokens and go away."""
    stream = asked(company.answers, company.model, (1, 2), length=500)
    events = []
    for event in stream:
        events.append(event)
        if len(events) == 5:
            stream.cancel()
    return events


ENDS: dict[str, tuple[Callable[[Company], list[Any]], type[Exception] | None]] = {
    "a node refuses it": (refused_by_a_node, KvBudgetExceeded),
    "its prompt is too long": (too_long, PromptTooLong),
    "it cannot be prepared": (unprepared, InputError),
    "its sampler raises": (raising, ZeroDivisionError),
    "its caller goes away": (cancelled, None),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_goes_wrong_for_one_ends_that_one_and_holds_nobody_up(
    company: Company, alone: list[list[int]], name: str
) -> None:
    """The three say what they say alone, and none waits for more than one sweep that is not its own."""
    fourth, error = ENDS[name]
    running = company.start()
    last = fourth(company)[-1]
    company.finish(running)
    if error is None:
        assert isinstance(last, Finished)
        assert last.reason == "cancelled"
    else:
        assert isinstance(last, Failed)
        assert type(last.error) is error
    assert company.token_ids == alone
    assert len(company.source.opened) == 1, "the ranks were opened again"
    for sweeps in company.sweeps:
        assert max(_gaps(sweeps)) <= MOST_SWEEPS
    assert company.streams[0].ask is not company.streams[1].ask
    stats = company.source.opened[0].node_stats()
    assert [(one.open_sequence_count, one.kv_bytes) for one in stats] == [(0, 0), (0, 0)]


def _gaps(sweeps: Sequence[int]) -> list[int]:
    return [after - before for before, after in pairwise(sweeps)]


def test_numbers_of_one_sequence_that_are_not_finite_end_that_one(
    company: Company, alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose weights overflow for one prompt is named to who asked it, and the others go on."""
    running = company.start()
    executor = company.nodes[0]._serving.current().executor  # type: ignore[attr-defined]
    run = executor.run

    def spoiled(kind: str, layer: int, segments: Sequence[Any], rows: Floats) -> Any:
        output = run(kind, layer, segments, rows)
        partial, first_row = output.partial.copy(), 0
        for segment in segments:
            if segment.sequence.capacity == 77 + 2 - 1:
                partial[first_row : first_row + segment.row_count] = np.inf
            first_row += segment.row_count
        return replace(output, partial=partial)

    monkeypatch.setattr(executor, "run", spoiled)
    with pytest.raises(
        NodeFault, match="node 0 computed numbers that are not finite in the attention block of layer 0"
    ):
        tokens(asked(company.answers, company.model, (1, 2), length=77))
    company.finish(running)
    assert company.token_ids == alone
    assert len(company.source.opened) == 1
