"""The coordinator's gRPC face for asking a loaded model. Messages in and out; answering/answers.py does the work.

Covers: GenerationService, who may ask, tokens to text. Threads: gRPC's; each turns its own answer into text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from common.errors import InputError
from common.wire.rpc import abort_with, guarded
from coordinator.membership.reach import MeshAccess
from coordinator.metrics import CoordinatorMetrics
from coordinator.models.records import LoadedModel, LoadedModels
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc

if TYPE_CHECKING:  # they import torch
    from coordinator.answering.answers import ModelRunner
    from coordinator.tokenizer import Tokenizer


class Generator:
    """The models of one mesh, ready to be asked; what they need is imported when the first one is. Close it."""

    def __init__(
        self, state_directory: Path, mesh: MeshAccess, metrics: CoordinatorMetrics, wire_dtype: str = "float32"
    ) -> None:  # fmt: skip
        self._wire_dtype = wire_dtype
        self._models, self._mesh, self._metrics = LoadedModels(state_directory), mesh, metrics
        self._lock = threading.Lock()
        self._closers: list[Callable[[], None]] = []
        self._runner: ModelRunner | None = None
        self._tokenizers: dict[str, tuple[LoadedModel, int, Tokenizer]] = {}

    def generate(
        self, request: generation_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[generation_pb2.GenerateResponse]:
        """Yield the parts of one answer. Raises: ShardmeshError of any kind."""
        # Here and not at the top: they import torch, 200 MB that a coordinator without a model has no use for.
        from coordinator.answering.answers import Asked, ModelRunner
        from coordinator.engine.sampler import Sampler, SamplingParams
        from coordinator.engine.sequence import make_sequence
        from coordinator.tokenizer import IncrementalDetokenizer

        model = self._models.get(request.model)
        with self._lock:
            if self._runner is None:
                self._runner = ModelRunner(self._mesh, self._metrics, self._wire_dtype)
                self._closers.append(self._runner.close)
            tokenizer, runner = self._tokenizer(model), self._runner
        sampling = SamplingParams(temperature=request.temperature, top_k=request.top_k, top_p=request.top_p)
        sequence = make_sequence(
            tokenizer, request.prompt, chat=request.chat, length=request.length, ignore_eos=request.ignore_eos,
            sampler=Sampler(sampling, request.seed),
        )  # fmt: skip
        sequence.check_fits(model.identity.spec.max_position_count)
        asked = Asked(model=model, sequence=sequence)
        runner.ask(asked)
        if not context.add_callback(lambda: runner.cancel(asked)):
            runner.cancel(asked)  # the caller has gone already
        started = generation_pb2.GenerationStarted(model=model.name, prompt_token_ids=sequence.prompt_ids)
        yield generation_pb2.GenerateResponse(started=started)
        detokenizer = IncrementalDetokenizer(tokenizer, sequence.prompt_ids)
        for part in asked.parts():
            if isinstance(part, str):
                yield generation_pb2.GenerateResponse(notice=generation_pb2.GenerationNotice(text=part))
                continue
            text = "" if part in sequence.eos_ids else detokenizer.push(part)
            yield generation_pb2.GenerateResponse(token=generation_pb2.GeneratedToken(token_id=part, text=text))
        finished = generation_pb2.GenerationFinished(
            finish_reason=sequence.finish_reason or "", text=detokenizer.finish(),
            ttft_seconds=asked.timings.ttft_seconds, seconds_per_token=asked.timings.seconds_per_token,
        )  # fmt: skip
        for process, values in asked.memory.items():
            finished.memory[process].values.update(values)
        yield generation_pb2.GenerateResponse(finished=finished)

    def _tokenizer(self, model: LoadedModel) -> Tokenizer:
        """Return a model's tokenizer, read once; call with the lock held. Raises: InputError: it is gone."""
        from coordinator.tokenizer import load_tokenizer

        try:
            number = model.tokenizer_directory.stat().st_ino  # to load a model again may bring another one
        except OSError as error:
            raise InputError(f"{model.tokenizer_directory} cannot be used ({error.strerror}); load the model again "
                             f"(coordinator-cli load MODEL --name {model.name})") from error  # fmt: skip
        kept = self._tokenizers.get(model.name)
        if kept is None or kept[:2] != (model, number):
            kept = self._tokenizers[model.name] = (model, number, load_tokenizer(model.tokenizer_directory))
        return kept[2]

    def let_go(self, name: str) -> None:
        """Have nothing to do with a node any more: it was removed from the mesh."""
        with self._lock:
            if self._runner is not None:
                self._runner.let_go(name)

    def close(self) -> None:
        """End what runs."""
        while self._closers:
            self._closers.pop()()


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
