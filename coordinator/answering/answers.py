"""A loaded model at work for all who ask it: one engine, one thread, several answers in the same sweeps.

Covers: opening the mesh when somebody asks, admission, ends of answers, a node that fails, another model.
Does not cover: messages (program/generation_service.py), sweeps (engine/engine.py), records of models
(models/records.py).
Threads: one of its own owns conversation and engine; callers put in an Asked and read its events.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from common.errors import NodeError, NoSuchNode, ResourceError, ShardmeshError, SliceMismatch
from common.weights.weight_memory import WeightMemory
from coordinator.answering.open_model import OpenModel
from coordinator.answering.run_options import RunOptions
from coordinator.engine.sequence import Sequence
from coordinator.engine.timings import Timings
from coordinator.membership.reach import MeshAccess
from coordinator.metrics import CoordinatorMetrics
from coordinator.models.node_slices import serve_slice
from coordinator.models.records import LoadedModel

MOST_ASKED = 16
KV_BUDGET_BYTES = 1 << 30
END_SECONDS = 10.0

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Asked:
    """One request, from its arrival to its end."""

    model: LoadedModel
    sequence: Sequence
    timings: Timings = field(default_factory=Timings)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of every process, once the answer is complete."""
    is_cancelled: bool = False
    last_at: float = field(default_factory=time.perf_counter)
    """When its last token came; before the first, when it arrived."""
    events: queue.SimpleQueue[int | str | Exception | None] = field(default_factory=queue.SimpleQueue)
    """Tokens, and sentences about nodes that are slow; then None, or what ended it."""

    def parts(self) -> Iterator[int | str]:
        """Yield the answer's tokens as they come, and notices. Raises: what ended it."""
        while (event := self.events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event


class ModelRunner:
    """Runs requests. Close it."""

    def __init__(self, mesh: MeshAccess, metrics: CoordinatorMetrics, wire_dtype: str = "float32") -> None:
        self._mesh, self._metrics, self._wire_dtype = mesh, metrics, wire_dtype
        self._changed = threading.Condition()
        self._waiting: list[Asked] = []
        self._running: list[Asked] = []
        self._is_ending = False
        self._removed: set[str] = set()
        self._conversation: OpenModel | None = None
        self._model: LoadedModel | None = None
        self._next_sequence_id = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> None:
        """Take a request; its events follow. Raises: ResourceError: too many wait or run."""
        with self._changed:
            if self._is_ending:
                raise NodeError("the coordinator is ending; ask again when it is back")
            if len(self._waiting) + len(self._running) >= MOST_ASKED:
                raise ResourceError(f"{MOST_ASKED} requests are under way; ask again when one has ended")
            self._next_sequence_id += 1
            asked.sequence.sequence_id = self._next_sequence_id
            self._waiting.append(asked)
            self._changed.notify()

    def cancel(self, asked: Asked) -> None:
        """End a request within a sweep."""
        asked.is_cancelled = True
        with self._changed:
            self._changed.notify()

    def let_go(self, name: str) -> None:
        """Send a node nothing more after the sweep under way: it was removed from the mesh."""
        with self._changed:
            self._removed.add(name)
            self._changed.notify()

    def close(self) -> None:
        """End what runs with an error, and the thread."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._leave_removed()
                self._admit()
                if self._running:
                    self._step()
            except ShardmeshError as error:
                self._fail(error)
            except Exception as error:  # the thread's edge: whoever waits must hear of it, and the next request works
                log.exception("a sweep has failed")
                self._fail(error)
        self._fail(NodeError("the coordinator has ended; ask again when it is back"))

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting or self._running or self._removed or self._is_ending
            )  # fmt: skip
            return not self._is_ending

    def _leave_removed(self) -> None:
        """Raise NoSuchNode when a node was removed that the open conversation goes through."""
        with self._changed:
            removed, self._removed = self._removed, set()
        if self._model is not None and (gone := removed.intersection(self._model.node_names)):
            raise _without_node(self._model, f"{min(gone)} was removed from the mesh")

    def _admit(self) -> None:
        """Take what waits into the next sweep, as far as it fits; requests for another model when nothing runs."""
        for asked in [waits for waits in self._waiting if waits.is_cancelled]:
            self._end(asked, "cancelled", None)
        while self._waiting:
            asked = self._waiting[0]
            if self._running and not self._fits(asked):
                return
            try:
                conversation = self._opened(asked.model)
                try:
                    conversation.engine.add(asked.sequence)
                except (NodeError, SliceMismatch):
                    if self._running or any(map(self._mesh.is_silent, asked.model.node_names)):
                        raise
                    self._close_conversation()  # a node was away, or served something else, since the last request
                    self._opened(asked.model).engine.add(asked.sequence)
            except ShardmeshError as error:
                self._end(asked, "error", error)
                raise
            self._waiting.remove(asked)
            self._running.append(asked)

    def _fits(self, asked: Asked) -> bool:
        """Tell whether a request can go beside those that run: the same model, and room for its keys and values."""
        if self._conversation is None or asked.model != self._model:
            return False
        spec = self._model.identity.spec
        positions = sum(one.sequence.position_capacity for one in (*self._running, asked))
        return all(
            spec.kv_bytes(len(share.kv_heads(spec)), positions) <= budget
            for share, budget in zip(
                self._model.identity.plan.shares, self._conversation.engine.mesh.kv_budget_bytes, strict=True
            )
        )

    def _opened(self, model: LoadedModel) -> OpenModel:
        """Return the mesh, serving a model; opened anew when it is another one than before."""
        if self._conversation is None or model != self._model:
            self._close_conversation()
            run = RunOptions(
                weights=WeightMemory(), kv_budget_bytes=KV_BUDGET_BYTES, node_addresses=model.node_names,
                mesh=self._mesh, wire_dtype=self._wire_dtype,
            )  # fmt: skip
            try:
                for name, description in zip(model.node_names, model.slices(), strict=True):
                    serve_slice(self._mesh, name, description.slice_id)
                self._conversation = OpenModel(model, run, None, self._metrics, self._notice)
            except NoSuchNode as error:
                raise _without_node(model, str(error)) from error
            self._model = model
        return self._conversation

    def _notice(self, text: str) -> None:
        """Tell all who wait of a node that is slow. From the thread that looks for them."""
        log.warning("%s", text)
        for asked in [*self._running, *self._waiting]:
            asked.events.put(f"{text}; coordinator-cli doctor measures what limits the mesh")

    def _step(self) -> None:
        assert self._conversation is not None  # something runs
        by_id = {asked.sequence.sequence_id: asked for asked in self._running}
        for asked in self._running[:]:
            if asked.is_cancelled:
                self._conversation.engine.remove(asked.sequence)
                self._end(asked, "cancelled", None)
        for new in self._conversation.engine.step():
            asked = by_id[new.sequence.sequence_id]
            now = time.perf_counter()
            is_first = len(new.sequence.generated_ids) == 1
            self._conversation.count_token(asked.timings, now - asked.last_at, is_first=is_first)
            asked.last_at = now
            asked.events.put(new.token_id)
            if new.sequence.finish_reason is not None:
                with contextlib.suppress(NodeError):  # the answer is complete in any case
                    asked.memory = self._conversation.memory()
                self._end(asked, new.sequence.finish_reason, None)

    def _end(self, asked: Asked, outcome: str, error: Exception | None) -> None:
        """Tell a request how it ended, and forget it."""
        for place in (self._waiting, self._running):
            if asked in place:
                place.remove(asked)
        self._metrics.requests.labels(outcome=outcome).inc()
        asked.events.put(error)

    def _fail(self, error: Exception) -> None:
        """End all that runs: after an error a mesh is of no more use. What waits is tried anew."""
        self._close_conversation()
        for asked in [*self._running, *(self._waiting if self._is_ending else ())]:
            self._end(asked, "error", error)

    def _close_conversation(self) -> None:
        conversation, self._conversation, self._model = self._conversation, None, None
        if conversation is not None:
            conversation.close()


def _without_node(model: LoadedModel, what: str) -> NoSuchNode:
    return NoSuchNode(f"{what}; {model.name} needs it, so load the model again: coordinator-cli load {model.source} "
                      f"--name {model.name}")  # fmt: skip
