"""Where models come from, as `Answers` takes them: from a mesh, or the one that a command was started with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from common.compute.backend import FLOAT32
from common.errors import InputError, NodeLost, NoSuchNode, ShardmeshError, SliceMismatch
from common.weights.weight_memory import WeightMemory
from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.answer_stream import Prepared
from coordinator.answering.explaining import Explaining
from coordinator.answering.open_model import OpenModel, RunnableModel
from coordinator.answering.requests import Ask, prepare
from coordinator.answering.run_options import RunOptions
from coordinator.engine.schedule import Schedule
from coordinator.models.records import LoadedModel, LoadedModels
from coordinator.ranks.round_watch import RoundWatch
from coordinator.ranks.trace_watch import TraceWatch
from coordinator.ranks.travel import USUAL_TRAVEL, Travel
from coordinator.tokenizer import Nursery, TokenizerApart

if TYPE_CHECKING:  # cryptography comes with it, which nodes of this machine have no use for
    from coordinator.membership.reach import MeshAccess

KV_BUDGET_BYTES = 1 << 30
Told = Callable[[str], None]


class ModelSource(Protocol):
    """Finds models by name and opens them."""

    def prepare(self, ask: Ask) -> Prepared:
        """Return a request in tokens. From several threads. Raises: ModelNotFound; InputError and its kinds."""

    def open(self, model: RunnableModel, schedule: Schedule, told: Told, reach_seconds: float | None) -> OpenModel:
        """Open a model for whatever the schedule holds.

        Args: told: called with a sentence about a node that is slow; reach_seconds: how long a node may take to be
        reached, if not as long as usual.
        """

    def may_be_back(self, model: RunnableModel) -> bool:
        """Tell whether nodes that were lost could be reached again at once."""

    def without_node(self, model: RunnableModel, what: str) -> ShardmeshError:
        """Return what to tell when a node that a model needs is no member any more."""


class MeshModels:
    """The models that were loaded onto a mesh."""

    def __init__(
        self, state_directory: Path, mesh: MeshAccess, series: AnswerSeries, travel: Travel = USUAL_TRAVEL,
        backend: str = "native", explaining: Explaining | None = None, watch: RoundWatch | None = None,
        trace: TraceWatch | None = None, activations: str = FLOAT32, nursery: Nursery | None = None,
    ) -> None:  # fmt: skip
        """Args: explaining: is told of each model that is opened; watch, trace: of the rounds of all, for who looks
        on; nursery: where tokenizers run, which is closed with this, as is one of its own."""
        self._explaining, self._watch = explaining or Explaining(), watch or RoundWatch()
        self._trace = trace or TraceWatch()
        self._models, self._mesh, self._series = LoadedModels(state_directory), mesh, series
        self._travel, self._backend, self._activations = travel, backend, activations
        self._lock = threading.Lock()
        self._tokenizers: dict[str, tuple[LoadedModel, int, TokenizerApart]] = {}
        self._nursery = nursery or Nursery()

    def prepare(self, ask: Ask) -> Prepared:
        """See ModelSource."""
        model = self._models.get(ask.model)
        with self._lock:
            tokenizer = self._tokenizer(model)
        sequence = prepare(ask, tokenizer, model.identity.spec)
        return Prepared(model=model, tokenizer=tokenizer, sequence=sequence, tokenizer_bytes=tokenizer.own_bytes)

    def close(self) -> None:
        """End the processes of tokenizers."""
        self._nursery.close()

    def open(self, model: RunnableModel, schedule: Schedule, told: Told, reach_seconds: float | None) -> OpenModel:
        """See ModelSource."""
        assert isinstance(model, LoadedModel)  # `prepare` gives no others
        run = RunOptions(
            weights=WeightMemory(), kv_budget_bytes=KV_BUDGET_BYTES, node_addresses=model.node_names, mesh=self._mesh,
            travel=self._travel, backend=self._backend, reach_seconds=reach_seconds,
            activations=self._activations,
        )  # fmt: skip
        try:
            if reach_seconds is None:  # else they served it a moment ago, and every question takes time
                self._have_served(model)
            try:
                return self._opened(model, run, schedule, told)
            except SliceMismatch:  # a load has had a node serve another one meanwhile
                if self._models.find(model.name) != model:
                    raise
                self._have_served(model)
                return self._opened(model, run, schedule, told)
        except NoSuchNode as error:
            raise self.without_node(model, str(error)) from error

    def may_be_back(self, model: RunnableModel) -> bool:
        """See ModelSource."""
        return not any(map(self._mesh.is_silent, model.node_names))

    def without_node(self, model: RunnableModel, what: str) -> ShardmeshError:
        """See ModelSource."""
        source = model.source if isinstance(model, LoadedModel) else model.name
        return NoSuchNode(f"{what}; {model.name} needs it, so load the model again: coordinator-cli load {source} "
                          f"--name {model.name}")  # fmt: skip

    def _opened(self, model: LoadedModel, run: RunOptions, schedule: Schedule, told: Told) -> OpenModel:
        opened = OpenModel(model, run, None, self._series, _told_what_to_do(told), schedule)
        self._explaining.opened(model.name, opened.engine.ranks.path, self._travel.dtype)
        for watch in (self._watch, self._trace):
            opened.engine.ranks.observers.append(watch.observer(model.name, model.node_names))
        opened.engine.swept.append(self._trace.swept)
        return opened

    def _have_served(self, model: LoadedModel) -> None:
        from coordinator.models.node_slices import serve_slice

        for name, description in zip(model.node_names, model.slices(), strict=True):
            serve_slice(self._mesh, name, description.slice_id)

    def _tokenizer(self, model: LoadedModel) -> TokenizerApart:
        """Return a model's tokenizer, whose files are read when it is first used, once; call with the lock held.

        Raises: InputError: it is gone.
        """
        try:
            number = model.tokenizer_directory.stat().st_ino  # to load a model again may bring another one
        except OSError as error:
            raise InputError(f"{model.tokenizer_directory} cannot be used ({error.strerror}); load the model again "
                             f"(coordinator-cli load MODEL --name {model.name})") from error  # fmt: skip
        kept = self._tokenizers.get(model.name)
        if kept is None or kept[:2] != (model, number):
            for name in [one for one in self._tokenizers if self._models.find(one) is None]:
                del self._tokenizers[name]  # its processes end with the last answer that needs them
            tokenizer = TokenizerApart(self._nursery, model.tokenizer_directory)
            kept = self._tokenizers[model.name] = (model, number, tokenizer)
        return kept[2]


def _told_what_to_do(told: Told) -> Told:
    return lambda text: told(f"{text}; coordinator-cli why says what for, and what would help")


class OneModel:
    """A model that is open already, for the only command that asks."""

    def __init__(self, opened: OpenModel) -> None:
        self._opened = opened

    def prepare(self, ask: Ask) -> Prepared:
        """See ModelSource; the command has prepared what it asks before it opened the model."""
        raise InputError(f"there is no model called '{ask.model}' here")

    def open(self, model: RunnableModel, schedule: Schedule, told: Told, reach_seconds: float | None) -> OpenModel:
        """See ModelSource."""
        return self._opened

    def may_be_back(self, model: RunnableModel) -> bool:
        """See ModelSource: nodes that this command started, or that somebody named, are not started again."""
        return False

    def without_node(self, model: RunnableModel, what: str) -> ShardmeshError:
        """See ModelSource."""
        return NodeLost(what)
