"""How much do weights of fewer bits change what a model says after the same text?

    Reader(judged), Reader(source)  ->  both read the text aloud, one token after another  ->  Quality

Covers: the divergence of the two distributions of each next token, how often the same one is likeliest, how likely the
text itself is. Does not cover: making slices, starting nodes (cli/quality.py).
Measure: mean Kullback-Leibler divergence of the judged distribution from the source's, nats, as llama.cpp's perplexity
tool prints it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from common.weights.stored_numbers import Floats
from coordinator.engine.engine import Engine
from coordinator.engine.sampler import Sampler
from coordinator.engine.sampling_params import SamplingParams
from coordinator.engine.sequence import Sequence as TokenSequence

PIECE_TOKENS = 128
"""Of a piece of text: what comes later in it is said with more before it."""
PIECES_AT_ONCE = 4
"""Sequences that share sweeps."""
GREEDY = SamplingParams(temperature=0.0)
Numbers = npt.NDArray[np.float64]


@dataclass(kw_only=True)
class Quality:
    """What was found, token by token."""

    divergences: list[float] = field(default_factory=list)
    """Nats."""
    same_count: int = 0
    """Of tokens after which both find the same one likeliest."""
    source_nats: float = 0.0
    """What the text's own tokens come to by the source: minus the logarithm of their probability."""
    judged_nats: float = 0.0

    @property
    def token_count(self) -> int:
        return len(self.divergences)

    @property
    def mean_divergence(self) -> float:
        return statistics.fmean(self.divergences)

    @property
    def same_share(self) -> float:
        return self.same_count / self.token_count

    def perplexities(self) -> tuple[float, float]:
        """Return those of the source and of what is judged."""
        return math.exp(self.source_nats / self.token_count), math.exp(self.judged_nats / self.token_count)

    def add(self, source: Numbers, judged: Numbers, token_id: int) -> None:
        """Count one token. Args: logarithms of probabilities, [vocab_size]; the token that the text goes on with."""
        self.divergences.append(max(0.0, float((np.exp(source) * (source - judged)).sum())))
        self.same_count += int(source.argmax()) == int(judged.argmax())
        self.source_nats -= float(source[token_id])
        self.judged_nats -= float(judged[token_id])


class _ReadAloud(Sampler):
    """Chooses what the text goes on with, and keeps what the model would have said."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        super().__init__(GREEDY, 0)
        self._token_ids = token_ids
        self.said: Numbers | None = None

    def sample(self, logits: Floats, position: int) -> int:
        """See Sampler."""
        shifted = logits.astype(np.float64) - float(logits.max())
        self.said = shifted - np.log(np.exp(shifted).sum())
        return self._token_ids[position]


def compare(
    source: Engine, judged: Engine, token_ids: Sequence[int], progress: Callable[[int, int], None]
) -> Quality:  # fmt: skip
    """Have two engines read a text. Args: progress: called with (tokens done, tokens in all).

    Raises: InputError, NodeError: as engines do.
    """
    quality, done = Quality(), 0
    pieces = [token_ids[first : first + PIECE_TOKENS] for first in range(0, len(token_ids), PIECE_TOKENS)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    total = sum(len(piece) - 1 for piece in pieces)
    for first in range(0, len(pieces), PIECES_AT_ONCE):
        some = pieces[first : first + PIECES_AT_ONCE]
        for count in _read_together(source, judged, some, first + 1, quality):
            done += count
            progress(done, total)
    return quality


def _read_together(
    source: Engine, judged: Engine, pieces: Sequence[Sequence[int]], first_id: int, quality: Quality
) -> Iterator[int]:
    """Read some pieces in both, sweep by sweep; yield how many tokens each sweep has compared."""
    both = [[_sequence(first_id + index, piece) for index, piece in enumerate(pieces)] for _ in range(2)]
    for engine, sequences in zip((source, judged), both, strict=True):
        for sequence, _ in sequences:
            engine.add(sequence)
    while any(sequence.finish_reason is None for sequence, _ in both[0]):
        source.step()
        judged.step()
        count = 0
        for (sequence, theirs), (_, ours) in zip(*both, strict=True):
            if theirs.said is not None and ours.said is not None:
                quality.add(theirs.said, ours.said, sequence.generated_ids[-1])
                theirs.said = ours.said = None
                count += 1
        yield count


def _sequence(sequence_id: int, piece: Sequence[int]) -> tuple[TokenSequence, _ReadAloud]:
    """Return a piece as a prompt of its first token, which the rest follows."""
    sampler = _ReadAloud(piece[1:])
    return TokenSequence(
        sequence_id=sequence_id, prompt_ids=(piece[0],), max_new_tokens=len(piece) - 1, eos_ids=frozenset(),
        sampler=sampler,
    ), sampler  # fmt: skip
