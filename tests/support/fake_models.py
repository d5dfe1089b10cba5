"""Models to ask that need no node, no file and no tokenizer of their own: letters in, letters out.

    source = FakeModels("a", "b")
    with answering(source) as answers:
        events = list(answers.ask(make_ask("ABC", model="a", length=5)))

Covers: a ModelSource whose models open over fake ranks, as often as they are asked for, each opening remembered;
preparing that waits, or raises. Does not cover: the ranks (fake_ranks.py), the engine (fake_mesh.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, ModelNotFound, NoSuchNode, ShardmeshError
from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.answer_stream import AnswerStream, Prepared
from coordinator.answering.answers import Answers
from coordinator.answering.model_source import Told
from coordinator.answering.open_model import OpenModel, RunnableModel
from coordinator.answering.requests import Ask, Event, Failed, Finished, Token, prepare
from coordinator.engine.schedule import Schedule
from coordinator.ranks.identity import RanksIdentity
from tests.support.fake_mesh import GREEDY, VOCAB_SIZE, FakeMesh, fake_identity, run_all


class Letters:
    """A tokenizer of one token a letter; end tokens, which are special, only where it is told so. See Tokenizer."""

    bos_id: int | None = 0
    vocab_size = VOCAB_SIZE

    def __init__(self, eos_ids: Sequence[int] = ()) -> None:
        self.eos_ids = frozenset(eos_ids)
        self.byte_token_ids: frozenset[int] = frozenset()
        """Of tokens that are bytes, whose text is known when the next one is no byte."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return a token for each letter."""
        return [(ord(letter) - ord("A")) % VOCAB_SIZE for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        """Return a letter for each token that is not special, all different."""
        return "".join(chr(ord("A") + token_id) for token_id in ids if token_id not in self.eos_ids)

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Refuse: there is no template."""
        raise InputError("no chat template")


@dataclass(frozen=True, kw_only=True)
class FakeModel:
    """See RunnableModel."""

    name: str
    identity: RanksIdentity
    node_names: Sequence[str] = ()
    own_directory: Path = Path("/nowhere")
    node_directories: Sequence[Path] = ()


class FakeOpenModel(OpenModel):
    """A model over fake ranks."""

    def __init__(self, mesh: FakeMesh, schedule: Schedule) -> None:
        self.mesh, self.nodes = mesh, []
        self.engine = mesh.engine(schedule)
        self._closing = ExitStack()
        self._closing.callback(mesh.close)

    def memory(self) -> dict[str, dict[str, int]]:
        """Return as much as is needed to see that it was asked."""
        return {"coordinator": {"rss_bytes": 1}}

    @property
    def is_closed(self) -> bool:
        """Whether its ranks' sessions are over."""
        return all(client.is_closed for client in self.mesh.clients)


class FakeModels:
    """See ModelSource. Models of the same name are equal."""

    def __init__(self, *names: str, world_size: int = 2, kv_budget_bytes: int = 1 << 30) -> None:
        identity = fake_identity(world_size)
        self.models = {name: FakeModel(name=name, identity=identity, node_names=(f"{name}-0",)) for name in names}
        self.opened: list[FakeOpenModel] = []
        self.opened_names: list[str] = []
        self.kv_budget_bytes = kv_budget_bytes
        self.before_open: Callable[[FakeMesh], None] = lambda mesh: None
        """Called with the ranks of each opening, which it may have fail or wait."""
        self.before_reopen: Callable[[], None] = lambda: None
        """Called before every opening but the first."""
        self.is_back = True
        """Whether nodes that were lost may be reached again."""
        self.told: list[Told] = []
        self.tokenizer = Letters()
        self.is_open = threading.Event()
        """Whether a model was opened so far."""
        self.is_preparing = threading.Event()
        self.may_prepare = threading.Event()
        self.may_prepare.set()

    def kv_bytes(self, positions: int) -> int:
        """Return the room that rank 0 needs for so many positions."""
        identity = next(iter(self.models.values())).identity
        return identity.spec.kv_bytes(len(identity.plan.shares[0].kv_heads(identity.spec)), positions)

    def prepare(self, ask: Ask) -> Prepared:
        """See ModelSource."""
        self.is_preparing.set()
        self.may_prepare.wait()
        model = self.models.get(ask.model or next(iter(self.models)))
        if model is None:
            raise ModelNotFound(f"no model '{ask.model}'")
        sequence = prepare(ask, self.tokenizer, model.identity.spec)
        return Prepared(model=model, tokenizer=self.tokenizer, sequence=sequence)

    def open(self, model: RunnableModel, schedule: Schedule, told: Told, reach_seconds: float | None) -> OpenModel:
        """See ModelSource."""
        if self.opened:
            self.before_reopen()
        mesh = FakeMesh(identity=model.identity, kv_budget_bytes=self.kv_budget_bytes)
        self.before_open(mesh)
        self.opened_names.append(model.name)
        try:
            self.opened.append(FakeOpenModel(mesh, schedule))
        except BaseException:
            mesh.close()
            raise
        self.told.append(told)
        self.is_open.set()
        return self.opened[-1]

    def may_be_back(self, model: RunnableModel) -> bool:
        """See ModelSource."""
        return self.is_back

    def without_node(self, model: RunnableModel, what: str) -> ShardmeshError:
        """See ModelSource."""
        return NoSuchNode(what)


def make_ask(prompt: str, *, length: int, model: str = "", stop: tuple[str, ...] = ()) -> Ask:
    """Return a greedy request."""
    return Ask(model=model, prompt=prompt, sampling=GREEDY, seed=0, most_tokens=length, stop=stop)


@contextmanager
def answering(source: FakeModels) -> Iterator[Answers]:
    """Return answers of these models; their threads have ended afterwards."""
    answers = Answers(source, AnswerSeries())
    try:
        yield answers
    finally:
        source.may_prepare.set()
        answers.close()
        assert not answers._thread.is_alive()
    assert all(opened.is_closed for opened in source.opened)


def alone(prompt: str, length: int) -> str:
    """Return the text of an answer that nobody else's is computed with."""
    mesh = FakeMesh(identity=fake_identity(2))
    sequence = prepare(make_ask(prompt, length=length), Letters(), mesh.identity.spec)
    sequence.sequence_id = 1
    assert run_all(mesh.engine(), [sequence]) == {}
    mesh.close()
    return Letters().decode(sequence.generated_ids)


def text_of(events: list[Event]) -> str:
    """Return an answer's whole text. Raises: what it failed with."""
    if isinstance(events[-1], Failed):
        raise events[-1].error
    return "".join(event.text for event in events if isinstance(event, Token | Finished))


def reason_of(events: list[Event]) -> str:
    """Return how an answer ended."""
    assert isinstance(events[-1], Finished)
    return events[-1].reason


def arrive(answers: Answers, source: FakeModels, ask: Ask) -> AnswerStream:
    """Ask in tokens, so that requests arrive in the order in which they are made."""
    model = source.models[ask.model]
    sequence = prepare(ask, source.tokenizer, model.identity.spec)
    return answers.answer(ask, Prepared(model=model, sequence=sequence, tokenizer=source.tokenizer))


def wait_for_hold(source: FakeModels) -> None:
    """Wait until a sweep is under way that is not answered."""
    assert source.is_open.wait(10)
    assert source.opened[0].mesh.clients[0].is_held.wait(10)
