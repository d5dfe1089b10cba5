"""The series of requests, by model: how many, how long, how they ended. Names as inference servers have settled on.

Covers: names, buckets, which models there are series of. Does not cover: who moves them (answer_stream.py,
under_way.py, engine/engine.py).
Threads: the engine's moves times and tokens; requests end in any.
Source of names: vLLM's metrics from 0.25 on, behind our prefix.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from common.errors import (
    InputError,
    InternalError,
    KvBudgetExceeded,
    ModelNotFound,
    NodeError,
    NodeFault,
    NodeLost,
    NodeTimeout,
    PromptTooLong,
    QueueFull,
    ShardmeshError,
)  # fmt: skip
from common.program.scraped_series import ScrapedGauge
from common.program.tallies import CounterTallies, HistogramTallies, HistogramTally, Tally
from coordinator.engine.sequence import CANCELLED, LENGTH, STOP

if TYPE_CHECKING:
    from coordinator.answering.answer_stream import AnswerStream

MOST_ASKED = 16
"""Requests that may be under way at once."""
BETWEEN_TOKENS_SECONDS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 20, 40, 60
)  # fmt: skip
REQUEST_SECONDS = (
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560
)  # fmt: skip
"""Bounds of buckets: from a short prompt on one machine to a long one through a mesh of small devices."""
ENDS = (STOP, LENGTH, CANCELLED)
LIKELY_FAILURES = (
    QueueFull, InputError, PromptTooLong, KvBudgetExceeded, NodeError, NodeLost, NodeTimeout, NodeFault, InternalError
)  # fmt: skip
"""These are counted from 0 on for every model: the first failure shows as a rise only where a 0 was before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelTallies:
    """What one model's requests move on their way; looked up once a request."""

    prompt_tokens: Tally
    generation_tokens: Tally
    first_token: HistogramTally
    between_tokens: HistogramTally
    queue: HistogramTally
    prefill: HistogramTally
    decode: HistogramTally
    whole: HistogramTally


class RequestSeries:
    """Series of requests. Label `model`: the name of a loaded model, empty for a request that names no such one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loaded: Callable[[], Collection[str]] | None = None
        """Tells which models there are; series of others go with the next page. None: whichever was asked."""
        self.under_way: Callable[[], Iterable[AnswerStream]] = tuple
        """Tells which requests there are."""
        self._seen: set[str] = set()
        self._known: dict[str, ModelTallies] = {}
        self._counting = threading.Lock()
        self._opened: tuple[str, Callable[[], float]] | None = None
        self._registry = registry
        self._declare_gauges(registry)
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts that were read.")
        self._generation_tokens = self._counter("generation_tokens", "Tokens of answers.")
        self.replayed = CounterTallies(
            "shardmesh_coordinator_replayed_sequences", "Answers that went on after nodes were lost and reached again.",
            registry=registry,
        ).of()  # fmt: skip
        self._success = self._counter(
            "request_success", "Requests that came to an end which is no failure, by which.", "finished_reason"
        )
        self._failures = self._counter("request_failures", "Requests that were refused or failed, by why.", "reason")
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From a request's arrival to its first token.", REQUEST_SECONDS
        )
        self._between_tokens = self._histogram(
            "inter_token_latency_seconds", "From one token of an answer to the next.", BETWEEN_TOKENS_SECONDS
        )
        self._queue = self._histogram(
            "request_queue_time_seconds", "From a request's arrival to the first rows of it that nodes get.",
            REQUEST_SECONDS,
        )  # fmt: skip
        self._prefill = self._histogram(
            "request_prefill_time_seconds", "From there to its first token: its prompt is read.", REQUEST_SECONDS
        )
        self._decode = self._histogram(
            "request_decode_time_seconds", "From the first token of a complete answer to its last.", REQUEST_SECONDS
        )
        self._whole = self._histogram(
            "e2e_request_latency_seconds",
            "From a request's arrival to the end of its complete answer.",
            REQUEST_SECONDS,
        )

    def of(self, model: str) -> ModelTallies:
        """Return what a request moves, and have series of its model from now on."""
        known = self._known.get(model)  # dropped with any of them
        if known is not None:
            return known
        self._seen.add(model)
        for end in ENDS:
            self._success.of(model, end)
        for failure in LIKELY_FAILURES:
            self._failures.of(model, failure.reason)
        self._known[model] = found = ModelTallies(
            prompt_tokens=self._prompt_tokens.of(model), generation_tokens=self._generation_tokens.of(model),
            first_token=self._first_token.of(model), between_tokens=self._between_tokens.of(model),
            queue=self._queue.of(model), prefill=self._prefill.of(model), decode=self._decode.of(model),
            whole=self._whole.of(model),
        )  # fmt: skip
        return found

    def named(self, asked: str) -> str:
        """Return the label for a request that asks for this model: a model's name, or nothing, never a caller's words.

        Who asks for no model by name asks for the only one.
        """
        names = self._names()
        if not asked and len(names) == 1:
            return next(iter(names))
        return asked if asked in names else ""

    def refused(self, asked: str, error: Exception) -> None:
        """Count a request that was not taken. Args: asked: the model's name as a caller says it."""
        self.failed(self.named(asked), error)

    def succeeded(self, model: str, finished_reason: str) -> None:
        """Count a request's end that is no failure."""
        with self._counting:
            self._success.of(model, finished_reason).value += 1

    def failed(self, model: str, error: Exception) -> None:
        """Count a request that failed or was refused. Args: model: as `named` returns it."""
        reason = error.reason if isinstance(error, ShardmeshError) else InternalError.reason
        with self._counting:
            self._failures.of("" if isinstance(error, ModelNotFound) else model, reason).value += 1

    def opened(self, model: str, kv_usage: Callable[[], float]) -> None:
        """Show how much of the room for keys and values is taken, of the model that is open now."""
        self._opened = (model, kv_usage)

    def closed(self) -> None:
        """Show that no model is open."""
        self._opened = None

    def _declare_gauges(self, registry: CollectorRegistry) -> None:
        running = ScrapedGauge(
            "shardmesh_num_requests_running", "Requests of which nodes have rows.", ["model"], registry=registry
        )
        running.set_function(lambda: self._counted(is_running=True))
        waiting = ScrapedGauge(
            "shardmesh_num_requests_waiting", "Requests that wait: for their turn, for room, to become tokens.",
            ["model"], registry=registry,
        )  # fmt: skip
        waiting.set_function(lambda: self._counted(is_running=False))
        limit = ScrapedGauge(
            "shardmesh_requests_limit", "Most requests that may be under way at once.", registry=registry
        )
        limit.show(lambda: MOST_ASKED)
        usage = ScrapedGauge(
            "shardmesh_kv_cache_usage_ratio", "Of the room for keys and values on the fullest node: what is reserved.",
            ["model"], registry=registry,
        )  # fmt: skip
        usage.set_function(self._usage)

    def _counter(self, stem: str, documentation: str, *more_labels: str) -> CounterTallies:
        return CounterTallies(
            f"shardmesh_{stem}", documentation, ["model", *more_labels], registry=self._registry, keeps=self._keeps
        )

    def _histogram(self, stem: str, documentation: str, bounds: tuple[float, ...]) -> HistogramTallies:
        return HistogramTallies(
            f"shardmesh_{stem}", documentation, ["model"], bounds=bounds, registry=self._registry, keeps=self._keeps
        )

    def _names(self) -> Collection[str]:
        """Return the models that there are."""
        return self._seen if self.loaded is None else self.loaded()

    def _keeps(self, model: str) -> bool:
        """Tell whether a model's series stay: it is there, or it answers still."""
        if not model or self.loaded is None or model in self.loaded():
            return True
        is_open = self._opened is not None and self._opened[0] == model
        is_kept = is_open or any(stream.model_name == model for stream in self.under_way())
        if not is_kept:
            self._known.pop(model, None)
        return is_kept

    def _counted(self, *, is_running: bool) -> Mapping[tuple[str, ...], float]:
        """Return how many requests run, or wait, by model. The page's first: from here on all models have series."""
        counts: dict[tuple[str, ...], float] = {}
        for name in list(self._names()):
            self.of(name)
            counts[name,] = 0
        for stream in self.under_way():
            counts.setdefault((stream.model_name,), 0)
            counts[stream.model_name,] += stream.is_running == is_running
        return counts

    def _usage(self) -> Mapping[tuple[str, ...], float]:
        opened = self._opened
        usage: dict[tuple[str, ...], float] = {(name,): 0.0 for name in list(self._names())}
        if opened is not None:
            usage[opened[0],] = opened[1]()
        return usage
