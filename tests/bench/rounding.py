"""What do fewer bytes on the wire cost in what the model says: SmolLM2 after real text, bfloat16 and 8-bit blocks?

Covers: how far the distribution of the next token moves (Kullback-Leibler divergence from float32's) and how often
another token is likeliest, after pieces of this project's own documents. Does not cover: how much sooner a first token
comes over a slow link (links.py, first_token.py).
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.weights.stored_numbers import Floats
from coordinator.tokenizer import load_tokenizer
from tests.bench.inputs import KEPT_DIRECTORY, MODEL_DIRECTORY, REPOSITORY
from tests.bench.report import Bar, Result, Settings, Table
from tests.support.mesh import RecordingSampler, run_alone, sliced, thread_mesh

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "DECISIONS.md", "deploy/README.md")
PROMPT_TOKENS, PIECES, QUICK_PIECES, WORLD_SIZE = 256, 24, 4, 2
EXACT = "float32"
MOST_DIVERGENCE = {"bfloat16": 0.001, "int8": 0.01}
"""Nats, in the mean: 4-bit weights of good kinds move a small model by 0.05 and more."""


def measure(settings: Settings) -> Result:
    """Ask for one token after each piece, numbers travelling in each way."""
    pieces = _pieces(QUICK_PIECES if settings.is_quick else PIECES)
    found: dict[str, list[Floats]] = {}
    with tempfile.TemporaryDirectory(dir=KEPT_DIRECTORY, prefix="rounding-") as directory:
        for wire in (EXACT, *MOST_DIVERGENCE):
            found[wire] = _logits(Path(directory), wire, pieces)
    result = Result(name="Rounding: what fewer bytes on the wire change, SmolLM2-135M float32 on 2 nodes")
    rows = []
    for wire, most in MOST_DIVERGENCE.items():
        moved = [divergence(exact, other) for exact, other in zip(found[EXACT], found[wire], strict=True)]
        likeliest = [[int(logits.argmax()) for logits in found[name]] for name in (EXACT, wire)]
        same = sum(exact == other for exact, other in zip(*likeliest, strict=True))
        rows.append((wire, f"{statistics.mean(moved):.5f}", f"{max(moved):.5f}", f"{same} of {len(pieces)}"))
        result.numbers[wire] = {"divergences": moved, "same": same}
        result.bars.append(Bar(name=f"mean divergence with {wire}", measured=statistics.mean(moved), needed=most,
                               at_least=False, unit=" nats"))  # fmt: skip
    header = ("--wire-dtype", "mean divergence, nats", "most", "the same likeliest token")
    result.tables = [Table(title=f"The next token after {PROMPT_TOKENS} tokens of text", header=header, rows=rows)]
    return result


def divergence(exact: Floats, other: Floats) -> float:
    """Return the Kullback-Leibler divergence of two distributions, nats. Args: logits, float32 [vocab_size]."""
    first, second = (_log_probabilities(logits) for logits in (exact, other))
    return float((np.exp(first) * (first - second)).sum())


def _log_probabilities(logits: Floats) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - float(logits.max())
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), np.float64)


def _pieces(count: int) -> list[list[int]]:
    """Return token ids of pieces of our documents, from all over them."""
    text = "\n".join((REPOSITORY / name).read_text(encoding="utf-8") for name in DOCUMENTS)
    ids = load_tokenizer(MODEL_DIRECTORY).encode(text)
    step = (len(ids) - PROMPT_TOKENS) // count
    return [list(ids[first : first + PROMPT_TOKENS]) for first in range(0, step * count, step)]


def _logits(directory: Path, wire: str, pieces: Sequence[list[int]]) -> list[Floats]:
    """Return the logits after each piece, float32 [vocab_size] each."""
    found = []
    with (
        sliced(MODEL_DIRECTORY, directory, world_size=WORLD_SIZE, weights_dtype="float32") as model,
        thread_mesh(model, memory_window=0, transport="grpc", wire_dtype=wire) as opened,
    ):
        for piece in pieces:
            sampler = RecordingSampler()
            run_alone(opened, piece, length=1, sampler=sampler)
            found.append(sampler.logits[0])
    return found
