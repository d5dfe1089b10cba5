"""How fast does a model run that is larger than the memory it may use, beside the disk and beside transformers?

Covers: turns of all contenders in memory groups of their own, each of ours between two raw reads of the same files;
a prompt of 512 tokens; that all of them say the same tokens.
Does not cover: what the numbers mean (big_report.py), which contenders (contender_table.py), the model (big_inputs.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import ExitStack

import psutil

from common.machine.operating_system import usable_core_count
from coordinator.tokenizer import load_tokenizer
from tests.bench.big_inputs import BigModel, prepare
from tests.bench.big_report import BigTurns, big_result
from tests.bench.command_runs import run_command
from tests.bench.contender_table import MESH, RESIDENT, TOKENS, Contender, our_contenders
from tests.bench.contenders import open_mesh, open_transformers
from tests.bench.memory_group import MemoryGroup, NoMemoryGroups
from tests.bench.offloaded import open_offloaded
from tests.bench.raw_disk import READ_BYTES, RawRead, forget_cached, read_raw
from tests.bench.report import BenchBroken, Result, Settings
from tests.bench.workers import Worker

MOST_ROUNDS = 2
RAW_WAYS = ((4, READ_BYTES), (2, 1 << 20), (8, 1 << 20))
RAW_BYTES = 4_000_000_000
"""Of one raw reading: seconds long, so that a disk's bursts even out."""
OFFLOAD_GROUP_BYTES = 4_000_000_000
OFFLOAD_TOKENS = 3
PROMPT_TOKENS = 512
PROMPT_WORLD_SIZES = (1, 4)
TRANSFORMERS_BYTES = 5
"""For each weight, what transformers needs free to run it in float32."""


def measure(settings: Settings) -> Result:
    """Run all contenders in turns. Raises: BenchBroken: one fails, or says other tokens."""
    model = prepare(settings.big_size)
    contenders = our_contenders(model.slice_bytes)
    rounds = min(settings.rounds, MOST_ROUNDS)
    turns = BigTurns()
    for number in range(1, rounds + 1):
        for contender in contenders:
            _say(number, rounds, contender.name)
            if contender.name in turns.failed:
                print("left out, it failed before", flush=True)
            else:
                _run_ours(model, contender, turns)
        for name, run in OTHERS.items():
            _say(number, rounds, name)
            try:
                run(model, turns)
            except BenchBroken as error:  # what was measured until here has taken many minutes
                turns.left_out.append(f"{name}: {str(error).strip().splitlines()[-1]}")
                print(f"failed: {error}", flush=True)
    _check_tokens(turns)
    return big_result(model, contenders, turns)


def _say(number: int, rounds: int, name: str) -> None:
    print(f"big: round {number} of {rounds}: {name} ...", end=" ", flush=True)


def _read_each_way(model: BigModel) -> list[RawRead]:
    """Read large pieces with four threads, as fio is asked to, and small ones, which virtual disks like, too."""
    return [
        read_raw(model.slice_files, thread_count=thread_count, read_bytes=read_bytes, most_bytes=RAW_BYTES)
        for thread_count, read_bytes in RAW_WAYS
    ]


def _run_ours(model: BigModel, contender: Contender, turns: BigTurns) -> None:
    """Run one contender between readings of the disk in several ways; the fastest is what the disk alone gives."""
    reads = _read_each_way(model)
    forget_cached(list(model.directory.rglob("*.safetensors")))
    try:
        run = run_command(contender.arguments(model.directory, model.prompt), contender.limit_bytes)
    except BenchBroken as error:
        if contender.name in (MESH, RESIDENT):  # nothing can be compared without them
            raise
        turns.failed[contender.name] = str(error)
        print(f"failed: {error}", flush=True)
        return
    reads += _read_each_way(model)
    raw = max(reads, key=lambda read: read.bytes_per_second)
    turns.ours.setdefault(contender.name, []).append(run)
    turns.raw.setdefault(contender.name, []).append(raw)
    bound = model.slice_bytes / raw.bytes_per_second
    print(f"{run.seconds_per_token:.2f} s a token, {run.peak_bytes / 1e6:.0f} MB "
          f"(the disk alone {bound:.2f} s, {raw.bytes_per_second / 1e9:.2f} GB/s)", flush=True)  # fmt: skip


def _run_transformers(model: BigModel, turns: BigTurns) -> None:
    needed_bytes = TRANSFORMERS_BYTES * model.shape.byte_count // 2
    free_bytes = psutil.virtual_memory().available
    if free_bytes < needed_bytes:
        turns.left_out.append(f"transformers in memory: {needed_bytes / 1e9:.0f} GB are needed and "
                              f"{free_bytes / 1e9:.0f} GB free")  # fmt: skip
        print("left out, not enough memory", flush=True)
        return
    prompt_ids = load_tokenizer(model.directory).encode(model.prompt)
    long_ids = load_tokenizer(model.directory).encode(model.long_prompt(PROMPT_TOKENS))
    with ExitStack() as closing:
        worker = Worker("transformers", open_transformers, model.directory, prompt_ids, usable_core_count())
        closing.callback(worker.close)
        worker.wait_until_ready()
        turns.transformers.append(worker.ask(TOKENS))
        turns.transformers_prompt.append(worker.ask(1, long_ids))
    turn, first = turns.transformers[-1], turns.transformers_prompt[-1].first_seconds
    print(f"{turn.seconds / len(turn.seconds_per_token):.2f} s a token, first token of the long prompt {first:.1f} s",
          flush=True)  # fmt: skip


def _run_offloaded(model: BigModel, turns: BigTurns) -> None:
    prompt_ids = load_tokenizer(model.directory).encode(model.prompt)
    forget_cached([model.directory / "model.safetensors"])
    with ExitStack() as closing:
        group = None
        with contextlib.suppress(NoMemoryGroups):
            group = closing.enter_context(MemoryGroup.create(OFFLOAD_GROUP_BYTES))
        worker = Worker(
            "transformers from disk", open_offloaded, model.directory, prompt_ids, usable_core_count(),
            model.shape.layers,
        )  # fmt: skip
        closing.callback(worker.close)
        if group:
            group.add(worker.process_id)
        worker.wait_until_ready()
        turn = worker.ask(OFFLOAD_TOKENS)
        peak_bytes = group.peak_bytes() if group else None
    turns.offloaded.append(turn)
    turns.offloaded_peak.append(turn.rss_bytes if peak_bytes is None else peak_bytes)
    print(f"{turn.seconds / len(turn.seconds_per_token):.2f} s a token, {turns.offloaded_peak[-1] / 1e6:.0f} MB",
          flush=True)  # fmt: skip


def _run_prompts(model: BigModel, turns: BigTurns) -> None:
    tokenizer = load_tokenizer(model.directory)
    prompt_ids = tokenizer.encode(model.prompt)
    long_ids = tokenizer.encode(model.long_prompt(PROMPT_TOKENS))
    told = []
    for world_size in PROMPT_WORLD_SIZES:
        worker = Worker(
            f"ours on {world_size}", open_mesh, model.directory, model.split(world_size), world_size, 0, prompt_ids,
            "float16",
        )  # fmt: skip
        try:
            worker.wait_until_ready()
            worker.ask(2)
            turns.prompt.setdefault(world_size, []).append(worker.ask(1, long_ids))
        finally:
            worker.close()
        told.append(f"{turns.prompt[world_size][-1].first_seconds:.1f} s on {world_size}")
    print(", ".join(told), flush=True)


OTHERS: dict[str, Callable[[BigModel, BigTurns], None]] = {
    "transformers in memory": _run_transformers,
    "transformers from disk, by accelerate": _run_offloaded,
    f"ours, a prompt of {PROMPT_TOKENS} tokens": _run_prompts,
}


def _check_tokens(turns: BigTurns) -> None:
    """Raises: BenchBroken: somebody says other tokens than we do in the small group."""
    expected = turns.ours[MESH][0].token_ids
    said = {name: [run.token_ids for run in runs] for name, runs in turns.ours.items()}
    said["transformers"] = [turn.token_ids for turn in turns.transformers]
    said["transformers from disk"] = [turn.token_ids for turn in turns.offloaded]
    for name, answers in said.items():
        for answer in answers:
            if answer != expected[: len(answer)]:
                raise BenchBroken(f"{name} says {answer}\nand {MESH} says {expected}")
    prompt_tokens = {turn.token_ids for own in turns.prompt.values() for turn in own}
    prompt_tokens |= {turn.token_ids for turn in turns.transformers_prompt}
    if len(prompt_tokens) > 1:
        raise BenchBroken(f"different first tokens after the prompt of {PROMPT_TOKENS}: {sorted(prompt_tokens)}")
