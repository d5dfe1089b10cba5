"""The coordinator's gRPC face for asking a loaded model. Messages in and out; answering/ does the work.

Covers: GenerationService, who may ask. Threads: gRPC's; each turns its own answer into text.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from common.compute.backend import FLOAT32
from common.errors import NodeError, ShardmeshError
from common.program.logs import entry
from common.program.request_id import REQUEST_ID_KEY, taken_request_id
from common.wire.rpc import abort_with, guarded
from coordinator.answering.explaining import Explaining
from coordinator.membership.reach import MeshAccess
from coordinator.models.records import LoadedModels
from coordinator.ranks.round_watch import RoundWatch
from coordinator.ranks.trace_watch import TraceWatch
from coordinator.ranks.travel import USUAL_TRAVEL, Travel
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc

if TYPE_CHECKING:  # numpy, kernels and tokenizers come with them
    from coordinator.answering.answer_series import AnswerSeries
    from coordinator.answering.answer_stream import AnswerStream
    from coordinator.answering.answers import Answers
    from coordinator.answering.model_source import MeshModels
    from coordinator.answering.requests import Ask, Event
    from coordinator.answering.under_way import UnderWay
    from coordinator.tokenizer.nursery import Nursery

MOST_LETTERS = 100
"""Of a name that somebody asks for, in the log."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AnswersUnderWay:
    """Requests as somebody who looks on finds them."""

    streams: Sequence[AnswerStream] = ()
    """Those that have not ended, in the order in which they came."""
    most: int = 0
    """That may be under way at once; 0 before the first one came."""
    token_count: int = 0
    """Of all answers so far."""


class Generator:
    """The models of one mesh, ready to be asked; what they need is imported when the first one is. Close it."""

    def __init__(
        self, state_directory: Path, mesh: MeshAccess, series: AnswerSeries, travel: Travel = USUAL_TRAVEL,
        backend: str = "native", activations: str = FLOAT32, nursery: Nursery | None = None,
    ) -> None:  # fmt: skip
        """Args: nursery: where models' tokenizers run, closed with this; one of its own otherwise."""
        self._nursery = nursery
        self._source: MeshModels | None = None
        self._state_directory, self._travel = state_directory, travel
        self._backend, self._activations = backend, activations
        self._mesh, self._series = mesh, series
        self.explaining, self.watch, self.trace = Explaining(), RoundWatch(), TraceWatch()
        self._lock = threading.Lock()
        self._answers: Answers | None = None
        self._asked: UnderWay | None = None
        self._answering: Counter[str] = Counter()
        self._is_closed = False

    def generate(
        self, request: generation_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[generation_pb2.GenerateResponse]:
        """Yield the parts of one answer. Raises: ShardmeshError of any kind."""
        # Here and not at the top: a coordinator without a model has no use for what comes with it.
        from coordinator.answering.requests import Failed, Started

        request_id = taken_request_id(_given_request_id(context))
        context.send_initial_metadata(((REQUEST_ID_KEY, request_id),))
        try:
            stream = self._started().ask(self._ask_of(request, request_id))
        except ShardmeshError as error:
            log.warning("%s", entry("request refused", request=request_id, model=request.model[:MOST_LETTERS] or None,
                                    reason=error.reason))  # fmt: skip
            raise
        if not context.add_callback(stream.cancel):
            stream.cancel()  # the caller has gone already
        model = ""
        try:
            for event in stream:
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Started):
                    model = event.model
                    self._count(model, 1)
                yield _response(event)
        finally:
            self._count(model, -1)

    def under_way(self) -> AnswersUnderWay:
        """Return the requests that have not ended."""
        from coordinator.answering.request_series import MOST_ASKED

        asked = self._asked
        if asked is None:
            return AnswersUnderWay(most=MOST_ASKED)
        streams = sorted(asked.all(), key=lambda stream: stream.asked_at)
        return AnswersUnderWay(streams=streams, most=MOST_ASKED, token_count=asked.token_count())

    def nodes_in_use(self, other_than: str) -> set[str]:
        """Return the nodes on which another model than this one answers at this moment."""
        with self._lock:
            answering = [name for name, count in self._answering.items() if count > 0 and name not in ("", other_than)]
        records = LoadedModels(self._state_directory)
        return {node for name in answering if (model := records.find(name)) is not None for node in model.node_names}

    def let_go(self, name: str) -> None:
        """Have nothing to do with a node any more: it was removed from the mesh."""
        with self._lock:
            if self._answers is not None:
                self._answers.let_go(name)

    def drain(self, limit_seconds: float) -> None:
        """Refuse new requests, and wait as long for those under way; those that last longer end in words."""
        with self._lock:
            self._is_closed = True
        if self._answers is not None:
            self._answers.drain(limit_seconds)

    def close(self) -> None:
        """End what runs."""
        with self._lock:
            self._is_closed = True
        if self._answers is not None:
            self._answers.close()
        if (closing := self._source or self._nursery) is not None:
            closing.close()

    def _ask_of(self, request: generation_pb2.GenerateRequest, request_id: str) -> Ask:
        try:
            return ask_of(request, request_id)
        except ShardmeshError as error:
            self._series.requests.refused(request.model, error)
            raise

    def _count(self, model: str, change: int) -> None:
        with self._lock:
            self._answering[model] += change

    def _started(self) -> Answers:
        from coordinator.answering.answers import Answers
        from coordinator.answering.model_source import MeshModels
        from coordinator.answering.under_way import UnderWay

        with self._lock:
            if self._is_closed:
                raise NodeError("the coordinator is ending; ask again when it is back")
            if self._answers is None:
                self._source = MeshModels(
                    self._state_directory,
                    self._mesh,
                    self._series,
                    self._travel,
                    self._backend,
                    self.explaining,
                    self.watch,
                    self.trace,
                    self._activations,
                    self._nursery,
                )
                self._asked = UnderWay(self._series.requests)
                self._answers = Answers(self._source, self._series, self._asked)
            return self._answers


def _given_request_id(context: grpc.ServicerContext) -> str:
    """Return what the caller calls its request; empty: nothing, or what is no text."""
    given = dict(context.invocation_metadata()).get(REQUEST_ID_KEY, "")
    return given if isinstance(given, str) else ""


def ask_of(request: generation_pb2.GenerateRequest, request_id: str) -> Ask:
    """Return what a message asks. Raises: InputError: a value out of its range."""
    from coordinator.answering.requests import Ask, Message
    from coordinator.engine.sampler import SamplingParams

    return Ask(
        model=request.model,
        prompt="" if request.chat else request.prompt,
        messages=(Message(role="user", content=request.prompt),) if request.chat else (),
        sampling=SamplingParams(
            temperature=request.temperature, top_k=request.top_k, top_p=request.top_p, min_p=request.min_p,
            repetition_penalty=request.repetition_penalty if request.HasField("repetition_penalty") else 1.0,
            presence_penalty=request.presence_penalty, frequency_penalty=request.frequency_penalty,
            logit_bias=request.logit_bias,  # not copied: it is looked at only once it is known to be of a fair size
            logprobs=request.logprobs if request.HasField("logprobs") else None,
        ),
        seed=request.seed, most_tokens=request.length, stop=tuple(request.stop), ignore_eos=request.ignore_eos,
        who="the mesh's owner", request_id=request_id,
    )  # fmt: skip


def _response(event: Event) -> generation_pb2.GenerateResponse:
    """Return an event as a message."""
    from coordinator.answering.requests import Finished, Notice, Reading, Started, Token

    response = generation_pb2.GenerateResponse()
    if isinstance(event, Started):
        response.started.model = event.model
        response.started.prompt_token_ids.extend(event.prompt_token_ids)
        response.started.minds_further_sampling = True
    elif isinstance(event, Reading):
        response.reading.read_token_count, response.reading.prompt_token_count = event.read_count, event.prompt_count
    elif isinstance(event, Token):
        response.token.token_id, response.token.text = event.token_id, event.text
        if event.likelihoods is not None:
            response.token.logprob = event.likelihoods.logprob
            for token_id, logprob in event.likelihoods.likeliest:
                response.token.likeliest.add(token_id=token_id, logprob=logprob)
    elif isinstance(event, Notice):
        response.notice.text = event.text
    elif isinstance(event, Finished):
        response.finished.finish_reason, response.finished.text = event.reason, event.text
        response.finished.ttft_seconds = event.timings.ttft_seconds
        response.finished.seconds_per_token.extend(event.timings.seconds_per_token)
        for process, values in event.memory.items():
            response.finished.memory[process].values.update(values)
    return response


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Lets the owner ask."""

    def __init__(self, generator: Generator, check_caller: Callable[[grpc.ServicerContext], None]) -> None:
        """Args: check_caller: raises NotTrusted for who may not ask."""
        self._generator, self._check_caller = generator, check_caller

    @guarded
    def Generate(  # noqa: N802 - the name is the contract's
        self, request: generation_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[generation_pb2.GenerateResponse]:
        self._check_caller(context)
        return self._answer(request, context)

    def _answer(
        self, request: generation_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[generation_pb2.GenerateResponse]:
        try:
            yield from self._generator.generate(request, context)
        except Exception as error:  # noqa: BLE001 - the edge of an RPC; abort_with logs what is not ours
            abort_with(context, error)
