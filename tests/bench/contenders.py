"""Who generates the same tokens from the same weights, and how is one turn of each timed?

Covers: transformers in one process; our mesh as `coordinator-cli generate` builds it, on real node processes.
Does not cover: taking turns (speed.py). Each opener here runs inside a worker (workers.py).
Loading does not count, and seconds per token begin after the first; what the first took stands beside them.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import torch

from common.machine.operating_system import own_memory, usable_core_count
from common.weights.weight_memory import WeightMemory
from coordinator.answering.open_model import OpenModel
from coordinator.answering.run_options import RunOptions
from coordinator.engine.sampler import Sampler, SamplingParams
from coordinator.engine.sequence import Sequence as TokenSequence
from coordinator.local.pool import LocalNodes
from coordinator.models.local_model import LocalModel, ModelOptions
from tests.bench.raw_disk import forget_cached

KV_BUDGET_BYTES = 1 << 30
_sequence_ids = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one turn of a contender gave; seconds are totals over all tokens after the first."""

    token_ids: tuple[int, ...]
    seconds_per_token: tuple[float, ...]
    parts: dict[str, float] = field(default_factory=dict)
    """Where the time went."""
    processor: dict[str, float] = field(default_factory=dict)
    """Processor time by role; the system counts it in hundredths of a second."""
    first_seconds: float = 0.0
    """From the prompt to the first token."""
    first_others_seconds: float = 0.0
    """Of the cores' time until then, what other programs took."""
    smallest_gap: float = 0.0
    """Between the best and the second logit, over all tokens; 0 where nobody looked."""
    rss_bytes: int = 0
    """Of this process at the end of the turn; 0 where nobody looked. (Its peak is while it loads: file and copy.)"""

    @property
    def seconds(self) -> float:
        return sum(self.seconds_per_token)

    @property
    def tokens_per_second(self) -> float:
        return len(self.seconds_per_token) / self.seconds

    @property
    def others_share(self) -> float:
        """Part of the cores' time that other programs took."""
        return max(0.0, self.processor["others"]) / (usable_core_count() * self.seconds)

    @property
    def first_others_share(self) -> float:
        """The same, until the first token."""
        return max(0.0, self.first_others_seconds) / (usable_core_count() * self.first_seconds)

    def milliseconds_per_token(self, seconds: float) -> float:
        """Return a total of this turn as milliseconds for each token."""
        return 1000 * seconds / len(self.seconds_per_token)


RunTurn = Callable[..., Turn]
"""Generates so many tokens, after a prompt of its own if it is given one."""


@contextmanager
def open_transformers(directory: Path, prompt_ids: Sequence[int], thread_count: int) -> Iterator[RunTurn]:
    """Load the model in float32; a hand-written greedy loop, because `generate` is slower than what it calls."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(thread_count)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)

    yield lambda length, prompt=prompt_ids: transformers_turn(model, prompt, length)


@torch.inference_mode()
def transformers_turn(model: Any, prompt_ids: Sequence[int], length: int) -> Turn:
    """Generate greedily with a model of transformers, one forward pass a token."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    gaps = []

    def next_token(token_ids: Sequence[int]) -> int:
        output = model(input_ids=torch.tensor([token_ids]), cache=cache, logits_to_keep=1)
        best = output.logits[0, -1].topk(2)
        gaps.append(float(best.values[0] - best.values[1]))
        return int(best.indices[0])

    before, started = processor_seconds([]), time.perf_counter()
    token_ids = [next_token(prompt_ids)]
    stamps = [time.perf_counter()]
    processor = processor_seconds([])
    while len(token_ids) < length:
        token_ids.append(next_token(token_ids[-1:]))
        stamps.append(time.perf_counter())
    return Turn(
        token_ids=tuple(token_ids), first_seconds=stamps[0] - started, seconds_per_token=differences(stamps),
        first_others_seconds=processor["others"] - before["others"],
        processor=subtract(processor_seconds([]), processor), smallest_gap=min(gaps),
        rss_bytes=own_memory().rss_bytes,
    )  # fmt: skip


@contextmanager
def open_mesh(
    model_directory: Path,
    split_directory: Path,
    world_size: int,
    memory_window: int,
    prompt_ids: Sequence[int],
    dtype: str = "float32",
) -> Iterator[RunTurn]:
    """Start node processes over slices that are there, and connect to them."""
    options = ModelOptions(
        model=model_directory, world_size=world_size, save_dir=str(split_directory), weights_dtype=dtype
    )
    local = LocalNodes()
    model = LocalModel(options)
    # A window reads from the page cache here: how fast it reads from the disk is big.py's question. What is there from
    # before goes first: a system that has taken some of it back gives the rest in small pieces, at half the speed.
    if memory_window:
        forget_cached(list(split_directory.rglob("*.safetensors")))
    weights = WeightMemory(memory_window=memory_window, page_cache="use" if memory_window else "auto")
    run_options = RunOptions(weights=weights, kv_budget_bytes=KV_BUDGET_BYTES)
    try:
        with OpenModel(model, run_options, local) as conversation:
            nodes = [psutil.Process(stats.process_id) for stats in conversation.node_stats()]

            def run(length: int, prompt: Sequence[int] = prompt_ids) -> Turn:
                before, started = processor_seconds(nodes), time.perf_counter()
                answer = _answer(conversation, prompt, length)
                token_ids = [next(answer)]
                stamps = [time.perf_counter()]
                parts, processor = _parts(conversation), processor_seconds(nodes)
                for token_id in answer:
                    token_ids.append(token_id)
                    stamps.append(time.perf_counter())
                parts = subtract(_parts(conversation), parts)
                parts["rest"] = stamps[-1] - stamps[0] - sum(parts.values())
                return Turn(
                    token_ids=tuple(token_ids), first_seconds=stamps[0] - started,
                    first_others_seconds=processor["others"] - before["others"],
                    seconds_per_token=differences(stamps), parts=parts,
                    processor=subtract(processor_seconds(nodes), processor),
                )  # fmt: skip

            yield run
    finally:
        local.close()
        model.close()


def _answer(opened: OpenModel, prompt_ids: Sequence[int], length: int) -> Iterator[int]:
    """Yield a greedy answer's tokens as the engine makes them: what a person waits for, but for the text."""
    sequence = TokenSequence(
        sequence_id=next(_sequence_ids), prompt_ids=tuple(prompt_ids), max_new_tokens=length, eos_ids=frozenset(),
        sampler=Sampler(SamplingParams(temperature=0), 0),
    )  # fmt: skip
    opened.engine.add(sequence)
    while sequence.finish_reason is None:
        for tell in opened.engine.step():
            if tell.error is not None:
                raise tell.error
            if tell.token_id is not None:
                yield tell.token_id


def _parts(conversation: OpenModel) -> dict[str, float]:
    rounds = conversation.engine.ranks.times
    return {
        "wait for tiles": rounds.tile_wait,
        "kernel": rounds.kernel,
        "wire": rounds.wire,
        "reduction": rounds.reduction,
        "head": conversation.engine.times.head,
    }


def processor_seconds(nodes: Sequence[psutil.Process]) -> dict[str, float]:
    """Return the processor time so far of this process, of all nodes, and of whatever else this machine does."""
    own = psutil.Process().cpu_times()
    here = own.user + own.system
    of_nodes = sum(times.user + times.system for times in (node.cpu_times() for node in nodes))
    return {"here": here, "nodes": of_nodes, "others": busy_seconds() - here - of_nodes}


def busy_seconds() -> float:
    """Return the time that the cores which we may use have been busy so far, for whomever."""
    per_core = psutil.cpu_times(percpu=True)
    if sys.platform == "linux":
        per_core = [per_core[core] for core in os.sched_getaffinity(0) if core < len(per_core)]
    return sum(times.user + times.system + times.nice for times in per_core)


def subtract(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """Return what each value grew by."""
    return {name: value - before[name] for name, value in after.items()}


def differences(stamps: Sequence[float]) -> tuple[float, ...]:
    """Return the seconds between one moment and the next."""
    return tuple(later - earlier for earlier, later in pairwise(stamps))
