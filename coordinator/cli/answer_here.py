"""Runs one `generate` request and writes its text, its report and its JSON.

Covers: the order of checks (what can fail fast fails first), streaming to stdout, the report on stderr.
Does not cover: flags (generate.py), the engine.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from common.compute.matmul import kernels
from common.program.metrics_page import MetricsPage
from coordinator.answering.open_model import OpenModel
from coordinator.answering.run_options import RunOptions
from coordinator.cli.answer_output import Answer, write_json, write_notice, write_report, write_text
from coordinator.cli.progress import byte_progress
from coordinator.engine.sampler import Sampler, SamplingParams
from coordinator.engine.sequence import Sequence, make_sequence
from coordinator.engine.timings import Timings
from coordinator.local.pool import LocalNodes
from coordinator.metrics import CoordinatorMetrics
from coordinator.models.local_model import LocalModel, ModelOptions
from coordinator.program.health_service import HealthService
from coordinator.tokenizer import IncrementalDetokenizer, Tokenizer, load_tokenizer


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """Everything that one run of `generate` was asked for."""

    prompt: str
    chat: bool
    length: int
    sampling: SamplingParams
    seed: int
    ignore_eos: bool
    json_output: bool
    model: ModelOptions
    run: RunOptions
    master_address: str | None
    metrics_port: int | None


def run_request(request: GenerateRequest, local: LocalNodes | None) -> None:
    """Generate and print. Raises ShardmeshError of any kind; nothing that was started here is left."""
    metrics = CoordinatorMetrics()
    with ExitStack() as closing:
        if request.master_address is not None:
            closing.callback(HealthService(request.master_address).close)
        if request.metrics_port is not None:
            closing.callback(MetricsPage(metrics.registry, request.metrics_port).close)
        model = LocalModel(request.model)
        closing.callback(model.close)
        tokenizer = load_tokenizer(request.model.model)
        sequence = make_sequence(
            tokenizer, request.prompt, chat=request.chat, length=request.length, ignore_eos=request.ignore_eos,
            sampler=Sampler(request.sampling, request.seed),
        )  # fmt: skip
        sequence.check_fits(model.checkpoint.spec.max_position_count)
        with byte_progress("slicing") as progress:
            model.slice(progress)
        run = replace(request.run, position_capacity=sequence.position_capacity)
        conversation = closing.enter_context(OpenModel(model, run, local, metrics, write_notice))
        timings = Timings()
        text = _stream(conversation, sequence, tokenizer, timings, echo=not request.json_output)
        memory = conversation.memory()
    answer = Answer(
        prompt_ids=sequence.prompt_ids, token_ids=sequence.generated_ids, text=text,
        finish_reason=sequence.finish_reason, timings=timings, memory=memory,
    )  # fmt: skip
    if request.json_output:
        write_json(answer)
    else:
        write_report(answer, f" (torch {torch.__version__}, kernels {kernels.variant})")


def _stream(conversation: OpenModel, sequence: Sequence, tokenizer: Tokenizer, timings: Timings, *, echo: bool) -> str:
    """Run the sequence, writing text as whole characters come; return all of it."""
    detokenizer = IncrementalDetokenizer(tokenizer, sequence.prompt_ids)
    pieces = []
    for token_id in conversation.answer(sequence, timings, time.perf_counter()):
        if token_id in sequence.eos_ids:
            continue
        pieces.append(detokenizer.push(token_id))
        if echo:
            write_text(pieces[-1])
    pieces.append(detokenizer.finish())
    if echo:
        write_text(pieces[-1] + "\n")
    return "".join(pieces)
