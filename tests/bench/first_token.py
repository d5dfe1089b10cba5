"""How long does the first token after a prompt of 512 tokens take, beside transformers?

Covers: SmolLM2 in float32, everything in memory, one node and four, as many threads; turns; ratios of each round.
Does not cover: long prompts of a big model (big.py), tokens after the first (speed.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

from common.machine.operating_system import usable_core_count
from coordinator.tokenizer import load_tokenizer
from tests.bench.contenders import Turn, open_mesh, open_transformers
from tests.bench.inputs import MODEL_DIRECTORY, long_prompt, sliced, transformers_directory
from tests.bench.report import DISTURBED, QUIET_SHARE, Bar, BenchBroken, Result, Settings, Spread, Table
from tests.bench.workers import Worker

TRANSFORMERS = "transformers"
WORLD_SIZES = {"1 node": 1, "mesh of 4": 4}
PROMPT_TOKENS = 512
MOST_OF_TRANSFORMERS = 1.3


def measure(settings: Settings) -> Result:
    """Give the prompt to each in turns. Raises: BenchBroken: one fails, or says another token."""
    prompt = tuple(load_tokenizer(MODEL_DIRECTORY).encode(long_prompt(MODEL_DIRECTORY, PROMPT_TOKENS)))
    turns: dict[str, list[Turn]] = {}
    with ExitStack() as closing:
        workers = {TRANSFORMERS: Worker(
            TRANSFORMERS, open_transformers, transformers_directory(), prompt, usable_core_count()
        )}  # fmt: skip
        closing.callback(workers[TRANSFORMERS].close)
        for name, size in WORLD_SIZES.items():
            workers[name] = Worker(name, open_mesh, MODEL_DIRECTORY, sliced(size), size, 0, prompt)
            closing.callback(workers[name].close)
        for worker in workers.values():
            worker.wait_until_ready()
            worker.ask(1)
        for _ in range(1 if settings.is_quick else settings.rounds):
            for name, worker in workers.items():
                turns.setdefault(name, []).append(worker.ask(1))
    if len({turn.token_ids for own in turns.values() for turn in own}) > 1:
        raise BenchBroken(f"different tokens after the prompt: {turns}")
    return _result(turns)


def first_token_bar(name: str, mine: Sequence[Turn], theirs: Sequence[Turn]) -> Bar:
    """Judge the rounds in which neither was disturbed."""
    pairs = list(zip(mine, theirs, strict=True))
    quiet = [pair for pair in pairs if all(turn.first_others_share <= QUIET_SHARE for turn in pair)]
    ratios = [one.first_seconds / other.first_seconds for one, other in quiet or pairs]
    return Bar(
        name=f"{name}, in {len(quiet)} of {len(pairs)} rounds that were quiet,", measured=Spread.of(ratios).median,
        needed=MOST_OF_TRANSFORMERS, at_least=False, undecided="" if quiet else DISTURBED,
    )  # fmt: skip


def _result(turns: dict[str, list[Turn]]) -> Result:
    result = Result(name=f"First token: SmolLM2-135M, float32, after a prompt of {PROMPT_TOKENS} tokens")
    rows = [(name, *Spread.of([turn.first_seconds for turn in own]).cells(2)) for name, own in turns.items()]
    result.tables = [Table(title="Seconds", header=("contender", "median", "least", "most"), rows=rows)]
    for name in WORLD_SIZES:
        result.bars.append(
            first_token_bar(f"first token, {name} beside {TRANSFORMERS}", turns[name], turns[TRANSFORMERS])
        )
    result.numbers = {name: [asdict(turn) for turn in own] for name, own in turns.items()}
    return result
