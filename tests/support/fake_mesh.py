"""An engine over ranks without nodes, its ends and its head made of small random matrices.

    mesh = FakeMesh(world_size=3)
    errors = run_all(mesh.engine(), sequences)

Covers: what an Engine is put together from. Does not cover: ranks themselves (fake_ranks.py), answers and models
(fake_models.py), true ends and heads (tests/unit/test_ends.py, tests/unit/test_head.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import numpy as np

from common.compute.residual import LayerVectors, Residual
from common.model.model_spec import ModelSpec, RopeSpec
from common.model.plan import make_plan
from common.weights.slice_format import ATTENTION, FFN
from common.weights.stored_numbers import Floats
from coordinator.answering.answer_series import AnswerSeries
from coordinator.engine.ends import Ends
from coordinator.engine.engine import Engine
from coordinator.engine.head import Head
from coordinator.engine.sampler import Sampler, SamplingParams
from coordinator.engine.schedule import Schedule
from coordinator.engine.sequence import Sequence as TokenSequence
from coordinator.ranks.identity import RanksIdentity
from coordinator.ranks.ranks import Ranks
from tests.support.fake_ranks import FakeClient

VOCAB_SIZE = 60
GREEDY = SamplingParams(temperature=0)


def fake_identity(world_size: int, strategy: str = "uniform", *, context: int = 4096) -> RanksIdentity:
    """Return a model of two layers and four heads, cut for so many ranks."""
    spec = ModelSpec(
        family="llama", hidden_size=16, layer_count=2, query_head_count=4, kv_head_count=4, head_size=4, ffn_size=64,
        vocab_size=VOCAB_SIZE, max_position_count=context, norm_epsilon=1e-5, rope=RopeSpec(),
    )  # fmt: skip
    plan = make_plan(spec, strategy, world_size)
    return RanksIdentity(model_identity="fake", spec=spec, plan=plan, dtype="float32")


class FakeEnds:
    """Embedding rows and norms; see Ends."""

    def __init__(self, spec: ModelSpec) -> None:
        self._table = np.random.default_rng(7).standard_normal((spec.vocab_size, spec.hidden_size), np.float32)
        vectors = LayerVectors(norms=[np.ones(spec.hidden_size, np.float32)] * spec.layer_count, late_biases=None)
        self.residual = Residual(blocks={ATTENTION: vectors, FFN: vectors}, norm_epsilon=spec.norm_epsilon)

    def embed(self, token_ids: Sequence[int]) -> Floats:
        """Return a row for each token."""
        return self._table[list(token_ids)]

    def head_input(self, hidden: Floats) -> Floats:
        """Return it as it is."""
        return hidden


class FakeHead:
    """Logits, each row alone; see Head."""

    def __init__(self, spec: ModelSpec) -> None:
        self._matrix = np.random.default_rng(8).standard_normal((spec.vocab_size, spec.hidden_size), np.float32)

    def logits(self, rows: Floats) -> Floats:
        """Return float32 [row_count, vocab_size]."""
        return np.stack([self._matrix @ row for row in rows])


class FakeMesh:
    """Ranks of one life, and what is needed to run them."""

    def __init__(
        self, world_size: int = 2, *, strategy: str = "uniform", kv_budget_bytes: int = 1 << 30,
        identity: RanksIdentity | None = None,
    ) -> None:  # fmt: skip
        self.identity = identity or fake_identity(world_size, strategy)
        self.series = AnswerSeries()
        self.clients = [
            FakeClient(rank, self.identity, kv_budget_bytes) for rank in range(self.identity.plan.world_size)
        ]
        self._ranks: Ranks | None = None

    def ranks(self, told: Callable[[str], None] = lambda text: None) -> Ranks:
        """Return open ranks."""
        self._ranks = Ranks(clients=self.clients, identity=self.identity, series=self.series.rounds, told=told)
        self._ranks.open()
        return self._ranks

    def engine(self, schedule: Schedule | None = None) -> Engine:
        """Return an engine over them."""
        spec = self.identity.spec
        ends, head = cast("Ends", FakeEnds(spec)), cast("Head", FakeHead(spec))
        return Engine(self.ranks(), ends, head, schedule or Schedule())

    def close(self) -> None:
        """End the sessions."""
        if self._ranks is not None:
            self._ranks.close()

    @property
    def waits_between_rounds(self) -> list[str]:
        """What was waited for while no round was under way, but for the ranks' opening."""
        waits = [body for client in self.clients for body in client.waits_between_rounds]
        return [body for body in waits if body not in ("open_session", "load_norms")]


def make_sequence(
    number: int, prompt_length: int, answer_length: int, *, sampler: Sampler | None = None
) -> TokenSequence:
    """Return a sequence of tokens that depend on its number; without end tokens."""
    prompt_ids = np.random.default_rng(number).integers(VOCAB_SIZE, size=prompt_length).tolist()
    return TokenSequence(
        sequence_id=number, prompt_ids=tuple(prompt_ids), max_new_tokens=answer_length, eos_ids=frozenset(),
        sampler=sampler or Sampler(GREEDY, 0),
    )  # fmt: skip


def run_all(engine: Engine, sequences: Iterable[TokenSequence]) -> dict[int, Exception]:
    """Add sequences and sweep until all have ended; return what went wrong, by sequence."""
    errors: dict[int, Exception] = {}
    for sequence in sequences:
        engine.add(sequence)
    while engine.schedule.sequences():
        for tell in engine.step():
            if tell.error is not None:
                errors[tell.sequence.sequence_id] = tell.error
    return errors


def solo_answer(identity: RanksIdentity, number: int, prompt_length: int, answer_length: int) -> list[int]:
    """Return the tokens that a greedy sequence has when it is alone on ranks of its own."""
    mesh, sequence = FakeMesh(identity=identity), make_sequence(number, prompt_length, answer_length)
    try:
        assert run_all(mesh.engine(), [sequence]) == {}
    finally:
        mesh.close()
    return sequence.generated_ids
