"""Chooses a next token in numpy, one step after another: what common/native/sampling.c does in one pass.

Covers: bias, penalties, greedy, temperature, top-k, top-p, min-p, in the order and meaning of transformers' logits
processors; penalties for presence and frequency, which transformers has not, as OpenAI's API describes them.
Does not cover: when it is used, where there are no kernels (sampler.py); random numbers (draws.py).

The same logits give the same choice on every machine: e to the x is made of products and sums here, which IEEE 754
rounds in one way, since libraries differ in its last bit; and sums run over the ids in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from common.weights.stored_numbers import Floats
from coordinator.engine.likelihoods import Likelihoods, logprob
from coordinator.engine.sampling_params import SamplingParams

LEAST_TEMPERATURE, MOST_TEMPERATURE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Below the one the likeliest token is the only choice; above the other float32 has no number but infinity."""
LEAST_LOGIT, MOST_LOGIT = np.finfo(np.float32).min, np.finfo(np.float32).max
LOG2_E, LN_2 = 1.4426950408889634, 0.6931471805599453
TERMS = 9
FACTORS = tuple(accumulate(range(1, TERMS), lambda factor, term: factor * LN_2 / term, initial=1.0))
"""Of 2 to the x, for x from -0.5 to 0.5, by powers of x: right to 3e-10, where logits are right to 6e-8."""
LEAST_EXPONENT, EXPONENT_BITS = -1023, 52
"""Of float64: with the least exponent its bits are those of 0."""
GRADE_SHIFT = 48
"""Weights of one grade differ by a sixteenth at most."""

Numbers = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


def choose(
    logits: Floats, params: SamplingParams, number: float, token_ids: Sequence[int] = (), prompt_count: int = 0
) -> int:  # fmt: skip
    """Return the id of the token that a number from 0 up to but not 1 falls on.

    Args: logits: float32 [vocab_size], finite; unchanged. token_ids: of prompt and answer, for penalties.
    """
    logits = changed_logits(logits, params, token_ids, prompt_count)
    if params.temperature < LEAST_TEMPERATURE:
        return int(logits.argmax())
    with np.errstate(over="ignore"):  # what is so far below the highest score has no chance
        # The highest score becomes 0 first: no temperature, however small, makes it infinite.
        scores = (logits - logits.max()) / np.float32(min(params.temperature, MOST_TEMPERATURE))
    ids = _top_k(scores, params.top_k)
    weights = _exponentials(scores if ids is None else scores[ids])
    kept = _top_p(weights, params.top_p)
    if kept is not None:
        weights = weights[kept]
        ids = kept if ids is None else ids[kept]
    if params.min_p:
        weights = np.where(weights.astype(np.float32) >= np.float32(params.min_p), weights, 0)
    sums = weights.cumsum()
    index = int(sums.searchsorted(number * sums[-1], side="right"))
    return index if ids is None else int(ids[index])


def likelihoods(logits: Floats, token_id: int, count: int) -> Likelihoods:
    """Return a token's likelihood and the likeliest tokens, as the model has them before any option."""
    highest = logits.max()
    with np.errstate(over="ignore"):
        total = float(_exponentials(logits - highest).sum())
    likeliest = np.argsort(-logits, kind="stable")[:count].tolist()
    own, *others = (logprob(float(logits[one]), float(highest), total) for one in (token_id, *likeliest))
    return Likelihoods(own, tuple(zip(likeliest, others, strict=True)))


def changed_logits(logits: Floats, params: SamplingParams, token_ids: Sequence[int], prompt_count: int) -> Floats:
    """Return logits with bias and penalties, new if there are any; beyond float32's greatest number is that number."""
    if not params.logit_bias and not params.penalizes:
        return logits
    logits = logits.copy()
    with np.errstate(over="ignore"):
        for token_id, bias in params.logit_bias.items():
            logits[token_id] += np.float32(bias)
        np.clip(logits, LEAST_LOGIT, MOST_LOGIT, out=logits)
        if params.penalizes and len(token_ids):
            _penalize(logits, params, np.asarray(token_ids), prompt_count)
    return logits


def _penalize(logits: Floats, params: SamplingParams, token_ids: Ids, prompt_count: int) -> None:
    there = np.unique(token_ids)
    counts = np.bincount(token_ids[prompt_count:], minlength=len(logits))[there].astype(np.float32)
    scores, repetition = logits[there], np.float32(params.repetition_penalty)
    scores = np.where(scores < 0, scores * repetition, scores / repetition)
    less = scores - np.float32(params.frequency_penalty) * counts - np.float32(params.presence_penalty)
    logits[there] = np.clip(np.where(counts > 0, less, scores), LEAST_LOGIT, MOST_LOGIT)


def _exponentials(scores: Floats) -> Numbers:
    """Return e to the power of scores that are 0 or less, to 3e-10 and with the same bits everywhere."""
    rest = scores.astype(np.float64)
    rest *= LOG2_E
    np.maximum(rest, LEAST_EXPONENT, out=rest)
    whole = np.rint(rest)
    rest -= whole
    powers = np.full_like(rest, FACTORS[-1])
    for factor in reversed(FACTORS[:-1]):
        powers *= rest
        powers += factor
    whole -= LEAST_EXPONENT
    bits = whole.astype(np.int64)
    bits <<= EXPONENT_BITS
    powers *= bits.view(np.float64)
    return powers


def _top_k(scores: Floats, top_k: int) -> Ids | None:
    """Return the indices that stay, None for all; what ties with the k-th stays too."""
    if not 0 < top_k < scores.size:
        return None
    place = scores.size - top_k
    return np.flatnonzero(scores >= np.partition(scores, place)[place])


def _top_p(weights: Numbers, top_p: float) -> Ids | None:
    """Return the indices that stay, ascending, None for all; the likeliest always stays.

    From the least likely up, tokens go as long as their running sum is at most 1 - p: not the same
    as counting from the top where tokens tie, and what transformers does (to within the rounding of its
    float32 sum: a token at the very edge may fall on either side).
    """
    if top_p == 1:
        return None
    grades = weights.view(np.int64) >> GRADE_SHIFT  # in the order of weights; only those at the edge need sorting
    sums = np.bincount(grades, weights).cumsum()
    total = sums[-1]

    def goes(sums: Numbers) -> npt.NDArray[np.bool_]:
        # Compared as transformers does, in float32: ten tokens of the same chance are a tenth each then, to both.
        small: npt.NDArray[np.bool_] = (sums / total).astype(np.float32) <= np.float32(1 - top_p)
        return small

    edge_grade = min(int(np.count_nonzero(goes(sums))), len(sums) - 1)
    edge = np.flatnonzero(grades == edge_grade)
    ascending = edge[weights[edge].argsort(kind="stable")]
    below = sums[edge_grade - 1] if edge_grade else 0.0
    goes_at_edge = goes(below + weights[ascending].cumsum())
    goes_at_edge[-1] = False
    stays = grades > edge_grade
    stays[ascending[~goes_at_edge]] = True
    return np.flatnonzero(stays)
