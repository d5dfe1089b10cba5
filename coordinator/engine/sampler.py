"""Chooses the next token of one sequence from its logits.

Covers: greedy, temperature, top-k, top-p, in the order and meaning of transformers' logits processors.
Does not cover: its parameters (sampling_params.py), random numbers (draws.py), logits (head.py), when to stop (the
engine).

It keeps no state: a choice is a function of the logits, the parameters, the seed and the position in the answer. The
same logits give the same choice on every machine: e to the x is made of products and sums here, which IEEE 754 rounds
in one way, since libraries differ in its last bit; and sums run over the ids in order.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import numpy.typing as npt

from common.errors import NodeFault, ShapeError
from common.weights.stored_numbers import Floats
from coordinator.engine.draws import draw
from coordinator.engine.sampling_params import SamplingParams as SamplingParams
from coordinator.engine.sampling_params import check_seed

LEAST_TEMPERATURE, MOST_TEMPERATURE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Below the one the likeliest token is the only choice; above the other float32 has no number but infinity."""
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


class Sampler:
    """The choices of one sequence: same parameters, seed, position and logits, same token."""

    def __init__(self, params: SamplingParams, seed: int) -> None:
        """Raises: InputError: the seed does not fit 64 bits."""
        check_seed(seed)
        self._params, self._seed = params, seed

    def sample(self, logits: Floats, position: int) -> int:
        """Return the id of the token at a position of the answer, the first of which is 0.

        Args: logits: float32 [vocab_size]; unchanged.
        Raises: ShapeError: of another shape or dtype. NodeFault: a logit is not a number.
        """
        if logits.ndim != 1 or not logits.size or logits.dtype != np.float32:
            raise ShapeError(f"logits are {logits.dtype} {list(logits.shape)}; float32 [vocab_size] is needed")
        if not np.isfinite(logits).all():
            raise NodeFault("the logits hold numbers that are not finite: a node or the head computed them wrongly")
        if self._params.temperature < LEAST_TEMPERATURE:
            return int(logits.argmax())
        with np.errstate(over="ignore"):  # what is so far below the highest score has no chance
            # The highest score becomes 0 first: no temperature, however small, makes it infinite.
            scores = (logits - logits.max()) / np.float32(min(self._params.temperature, MOST_TEMPERATURE))
        ids = _top_k(scores, self._params.top_k)
        weights = _exponentials(scores if ids is None else scores[ids])
        kept = _top_p(weights, self._params.top_p)
        if kept is not None:
            weights = weights[kept]
            ids = kept if ids is None else ids[kept]
        sums = weights.cumsum()
        index = int(sums.searchsorted(draw(self._seed, position) * sums[-1], side="right"))
        return index if ids is None else int(ids[index])


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
