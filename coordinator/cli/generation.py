"""Runs one `generate` request and writes its text, its report and its JSON.

Covers: the order of checks (what can fail fast fails first), streaming to stdout, the report on stderr.
Does not cover: flags (generate.py), the engine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch

from common.errors import InputError, ResourceError
from common.matmul import kernels
from common.metrics_page import MetricsPage
from common.operating_system import own_memory
from coordinator.cli.progress import byte_progress
from coordinator.conversation import Conversation, Model, ModelOptions, Timings
from coordinator.health_service import HealthService
from coordinator.local import LocalNodes
from coordinator.metrics import CoordinatorMetrics
from coordinator.run_options import RunOptions
from coordinator.sampler import Sampler, SamplingParams
from coordinator.sequence import Sequence
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
        model = Model(request.model)
        closing.callback(model.close)
        tokenizer = load_tokenizer(request.model.model)
        sequence = _sequence(request, tokenizer)
        sequence.check_fits(model.checkpoint.spec.max_position_count)
        with byte_progress("slicing") as progress:
            model.slice(progress)
        run = replace(request.run, position_capacity=sequence.position_capacity)
        conversation = closing.enter_context(Conversation(model, run, local, metrics))
        timings = Timings()
        text = _stream(conversation, sequence, tokenizer, timings, echo=not request.json_output)
        memory = _memory(conversation)
    if request.json_output:
        _write(json.dumps(_document(sequence, text, timings, memory), ensure_ascii=False) + "\n")
    else:
        _report(sequence, timings, memory)


def _sequence(request: GenerateRequest, tokenizer: Tokenizer) -> Sequence:
    if request.chat:
        text = tokenizer.chat_prompt([{"role": "user", "content": request.prompt}])
        prompt_ids = tokenizer.encode(text, add_special_tokens=False)
    else:
        prompt_ids = tokenizer.encode(request.prompt)
    if not prompt_ids:
        if tokenizer.bos_id is None:
            raise InputError("the prompt is empty and this model has no BOS token to start from; give a --prompt")
        prompt_ids = [tokenizer.bos_id]
    return Sequence(
        sequence_id=1, prompt_ids=tuple(prompt_ids), max_new_tokens=request.length,
        eos_ids=frozenset() if request.ignore_eos else tokenizer.eos_ids,
        sampler=Sampler(request.sampling, request.seed),
    )  # fmt: skip


def _stream(
    conversation: Conversation, sequence: Sequence, tokenizer: Tokenizer, timings: Timings, *, echo: bool
) -> str:
    """Run the sequence, writing text as whole characters come; return all of it."""
    detokenizer = IncrementalDetokenizer(tokenizer, sequence.prompt_ids)
    pieces = []
    for token_id in conversation.answer(sequence, timings, time.perf_counter()):
        if token_id in sequence.eos_ids:
            continue
        pieces.append(detokenizer.push(token_id))
        if echo:
            _write(pieces[-1])
    pieces.append(detokenizer.finish())
    if echo:
        _write(pieces[-1] + "\n")
    return "".join(pieces)


def _write(text: str) -> None:
    """Write to stdout at once. Raises: BrokenPipeError: the reader has gone; ResourceError: it cannot be written."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResourceError(f"cannot write the text to stdout: {error.strerror}; nothing more was generated") from error


def _memory(conversation: Conversation) -> dict[str, dict[str, int]]:
    """Return the memory of every process, in bytes."""
    own = own_memory()
    memory = {
        "coordinator": {
            "process_id": os.getpid(), "peak_rss_bytes": own.peak_rss_bytes, "pss_bytes": own.pss_bytes,
            **conversation.own_weights(),
        }
    }  # fmt: skip
    for stats in conversation.node_stats():
        memory[f"node{stats.rank}"] = {
            "process_id": stats.process_id, "peak_rss_bytes": stats.peak_rss_bytes, "pss_bytes": stats.pss_bytes,
            "window_bytes": stats.window_bytes, "resident_bytes": stats.resident_bytes,
            "peak_weight_bytes": stats.peak_weight_bytes, "kv_bytes": stats.kv_bytes, "read_bytes": stats.read_bytes,
        }  # fmt: skip
    return memory


def _document(sequence: Sequence, text: str, timings: Timings, memory: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {
        "prompt_token_ids": list(sequence.prompt_ids),
        "token_ids": sequence.generated_ids,
        "text": text,
        "finish_reason": sequence.finish_reason,
        "timings": {
            "ttft_seconds": timings.ttft_seconds,
            "seconds_per_token": timings.seconds_per_token,
            "tokens_per_second": timings.tokens_per_second,
        },
        "memory": memory,
    }


def _report(sequence: Sequence, timings: Timings, memory: dict[str, dict[str, int]]) -> None:
    nodes = {name: values for name, values in memory.items() if name != "coordinator"}
    peaks = ", ".join(f"{name} {values['peak_rss_bytes'] / 1e6:.0f}" for name, values in memory.items())
    pss_bytes = sum(values["pss_bytes"] for values in memory.values())
    together = f"; {pss_bytes / 1e6:.0f} MB in all, shared pages once" if pss_bytes else ""
    print(
        f"\n{len(sequence.prompt_ids)} prompt tokens, {len(sequence.generated_ids)} generated "
        f"({sequence.finish_reason}) on {len(nodes)} node{'s' if len(nodes) > 1 else ''}\n"
        f"first token after {timings.ttft_seconds:.2f} s, then {timings.tokens_per_second:.1f} tokens/s "
        f"(torch {torch.__version__}, kernels {kernels.variant})\n"
        f"peak memory, MB: {peaks}{together}",
        file=sys.stderr,
    )
