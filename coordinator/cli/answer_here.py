"""Runs one `generate` request on nodes that it starts or is told of.

Covers: the order of checks (what can fail fast fails first), everything opened and closed.
Does not cover: flags (generate.py), what is written (answer_output.py), the answer itself (answering/answers.py).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from common.compute.backend import NATIVE
from common.compute.matmul import kernels
from common.machine.operating_system import share_heaps
from common.program.metrics_page import MetricsPage, MetricsPlace
from common.program.process_series import make_registry
from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.answer_stream import Prepared
from coordinator.answering.answers import Answers
from coordinator.answering.model_source import OneModel
from coordinator.answering.open_model import OpenModel
from coordinator.answering.requests import Ask, prepare
from coordinator.answering.run_options import RunOptions
from coordinator.cli.answer_output import write_events, write_json, write_report
from coordinator.cli.answer_screen import AnswerScreen
from coordinator.cli.late_progress import late_progress
from coordinator.local.pool import LocalNodes
from coordinator.models.local_model import LocalModel, ModelOptions
from coordinator.tokenizer import TokenizerApart


@dataclass(frozen=True, kw_only=True)
class LocalRequest:
    """Everything that one run of `generate` was asked for."""

    ask: Ask
    tokenizer: TokenizerApart
    json_output: bool
    model: ModelOptions
    run: RunOptions
    master_address: str | None
    metrics_port: int | None


def run_request(request: LocalRequest, local: LocalNodes | None, screen: AnswerScreen) -> None:
    """Generate and print. Raises ShardmeshError of any kind; nothing that was started here is left."""
    share_heaps()
    series = AnswerSeries(make_registry("coordinator-cli"))
    with ExitStack() as closing:
        if request.master_address is not None:
            from coordinator.program.health_service import HealthService

            closing.callback(HealthService(request.master_address).close)
        if request.metrics_port is not None:
            closing.callback(MetricsPage(series.registry, MetricsPlace(port=request.metrics_port)).close)
        model = LocalModel(request.model)
        closing.callback(model.close)
        sequence = prepare(request.ask, request.tokenizer, model.checkpoint.spec)
        screen.clear()
        with late_progress("slicing") as progress:
            model.slice(progress)
        if (widened := model.widened_bytes) is not None:
            screen.note(f"the slices are {model.dtype}, {widened[0] / 1e6:.0f} MB; --split-bin makes them as the file "
                        f"has its blocks, {widened[1] / 1e6:.0f} MB, which is faster")  # fmt: skip
        screen.wait("opening the model")
        tokenizer_bytes = request.tokenizer.own_bytes()
        run = replace(request.run, position_capacity=sequence.position_capacity, tokenizer_bytes=tokenizer_bytes)
        told = [screen.note]  # of slow nodes: until there are answers, whose other events it comes among
        opened = closing.enter_context(OpenModel(model, run, local, series, lambda text: told[-1](text)))
        answers = Answers(OneModel(opened), series)
        told.append(answers.notice)
        closing.callback(answers.close)
        prepared = Prepared(model=model, sequence=sequence, tokenizer=request.tokenizer,
                            tokenizer_bytes=request.tokenizer.own_bytes)  # fmt: skip
        events = answers.answer(request.ask, prepared)
        answer = write_events(events, screen)
    if request.json_output:
        write_json(answer, opened.engine.ranks.path.seconds_by_node())
    else:
        write_report(answer, f" ({_engine(request.run)})")


def _engine(run: RunOptions) -> str:
    """Return what has computed, for a person."""
    if run.backend == NATIVE and not run.use_gpu:
        return f"kernels {kernels.variant}"
    import torch  # which is here by now

    return f"torch {torch.__version__}"
