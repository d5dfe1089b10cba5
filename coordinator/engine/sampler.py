"""Chooses the next token of one sequence from its logits.

Covers: greedy, temperature, top-k, top-p, in the order and meaning of transformers' logits processors.
Does not cover: its parameters (sampling_params.py), logits (head.py), when to stop (the engine).
"""

from __future__ import annotations

import math

import torch

from common.errors import NodeFault, ShapeError
from coordinator.engine.sampling_params import SamplingParams as SamplingParams
from coordinator.engine.sampling_params import check_seed

LEAST_TEMPERATURE, MOST_TEMPERATURE = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
"""Below the one the likeliest token is the only choice; above the other float32 has no number but infinity."""


class Sampler:
    """The choices of one sequence: same parameters, seed and logits, same tokens."""

    def __init__(self, params: SamplingParams, seed: int) -> None:
        """Raises: InputError: the seed does not fit 64 bits."""
        check_seed(seed)
        self._params = params
        self._generator = torch.Generator().manual_seed(seed)

    def sample(self, logits: torch.Tensor) -> int:
        """Return the next token's id.

        Args: logits: float32 [vocab_size]; unchanged.
        Raises: ShapeError: of another shape or dtype. NodeFault: a logit is not a number.
        """
        if logits.ndim != 1 or not logits.numel() or logits.dtype != torch.float32:
            raise ShapeError(f"logits are {logits.dtype} {list(logits.shape)}; float32 [vocab_size] is needed")
        # The sum is cheaper to look at than every value: it is finite unless one of them is not.
        if not math.isfinite(logits.sum().item()) and not bool(torch.isfinite(logits).all()):
            raise NodeFault("the logits hold numbers that are not finite: a node or the head computed them wrongly")
        if self._params.temperature < LEAST_TEMPERATURE:
            return int(logits.argmax())
        # The highest score becomes 0 first: no temperature, however small, overflows.
        scores = (logits - logits.max()) / min(self._params.temperature, MOST_TEMPERATURE)
        ids = _top_k(scores, self._params.top_k)
        if ids is not None:
            scores = scores[ids]
        probabilities = scores.softmax(dim=-1)
        kept = _top_p(probabilities, self._params.top_p)
        if kept is not None:
            probabilities = probabilities[kept]
            ids = kept if ids is None else ids[kept]
        position = torch.multinomial(probabilities, 1, generator=self._generator)
        return int(position if ids is None else ids[position])


def _top_k(scores: torch.Tensor, top_k: int) -> torch.Tensor | None:
    """Return the indices that stay, None for all; what ties with the k-th stays too."""
    if not 0 < top_k < scores.numel():
        return None
    return (scores >= scores.topk(top_k).values[-1]).nonzero().squeeze(-1)


def _top_p(probabilities: torch.Tensor, top_p: float) -> torch.Tensor | None:
    """Return the indices that stay, None for all; the likeliest always stays.

    From the least likely up, tokens go as long as their running sum is at most 1 - p: not the same
    as counting from the top where tokens tie, and what transformers does (to within the rounding of a
    float32 sum: a token at the very edge may fall on either side).
    """
    if top_p == 1:
        return None
    # All tokens below this together stay under 1 - p, and so all of them go: most of a vocabulary needs no sorting.
    rare = probabilities < (1 - top_p) / (2 * probabilities.numel())
    candidates = (~rare).nonzero().squeeze(-1)
    ascending, order = probabilities[candidates].sort()
    removed = probabilities[rare].sum() + ascending.cumsum(dim=-1) <= 1 - top_p
    removed[-1] = False
    return candidates[order[~removed]]
