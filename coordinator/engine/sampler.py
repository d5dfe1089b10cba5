"""Chooses the next token of each sequence from its logits, those of a whole sweep in one pass.

Covers: whose options and draws go with which row; greedy, temperature, top-k, top-p, min-p, penalties and bias, in the
order and meaning of transformers' logits processors.
Does not cover: the pass itself (common/native/sampling.c, or plain_choice.py where there are no kernels), parameters
(sampling_params.py), random numbers (draws.py), logits (head.py), when to stop (the engine).

It keeps no state: a choice is a function of the logits, the parameters, the seed, the position in the answer and, with
penalties, the tokens before it. The same logits give the same choice on every machine.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.compute import matmul
from common.errors import NodeFault, ShapeError
from common.native.address import address
from common.native.choices import Choice
from common.native.library import Outcome
from common.weights.stored_numbers import Floats
from common.wording import counted
from coordinator.engine.draws import draw
from coordinator.engine.likelihoods import Likelihoods, logprob
from coordinator.engine.plain_choice import LEAST_TEMPERATURE, MOST_TEMPERATURE, choose, likelihoods
from coordinator.engine.sampling_params import SamplingParams as SamplingParams
from coordinator.engine.sampling_params import check_seed

NO_TOKENS = array("i")
MOST_TOKENS = (1 << 31) - 1
"""Of a vocabulary: ids have 32 bits."""


class Sampler:
    """The choices of one sequence: same parameters, seed, position, logits and tokens so far, same token.

    One of a class that chooses in another way is asked by `sample`, row by row.
    """

    def __init__(self, params: SamplingParams, seed: int) -> None:
        """Raises: InputError: the seed does not fit 64 bits."""
        check_seed(seed)
        self._params, self._seed = params, seed
        bias = params.logit_bias
        self._biased_ids, self._biases = array("i", bias.keys()), array("f", bias.values())

    @property
    def params(self) -> SamplingParams:
        return self._params

    def sample(self, logits: Floats, position: int) -> int:
        """Return the id of the token at a position of the answer, the first of which is 0.

        Penalties, which go by the tokens before it, are left out (choose_together has them).

        Args: logits: float32 [vocab_size]; unchanged.
        Raises: ShapeError: of another shape or dtype. NodeFault: a logit is not a number.
        """
        if logits.ndim != 1 or not logits.size or logits.dtype != np.float32:
            raise ShapeError(f"logits are {logits.dtype} {list(logits.shape)}; float32 [vocab_size] is needed")
        chosen = _chosen_of([Turn(self, position)], logits[None])[0]
        if isinstance(chosen, Exception):
            raise chosen
        return chosen.token_id

    def choice(self, turn: Turn) -> Choice:
        """Return what the pass is told; good as long as this sampler and the turn's tokens stay as they are."""
        params = self._params
        choice = Choice(
            top_p=params.top_p, min_p=params.min_p, top_k=_size(params.top_k),
            repetition=params.repetition_penalty, presence=params.presence_penalty,
            frequency=params.frequency_penalty,
        )  # fmt: skip
        if params.temperature >= LEAST_TEMPERATURE:
            choice.temperature = min(params.temperature, MOST_TEMPERATURE)
            choice.number = draw(self._seed, turn.position)
        if self._biases:
            choice.biased_ids, choice.biases = self._biased_ids.buffer_info()[0], self._biases.buffer_info()[0]
            choice.bias_count = len(self._biases)
        if params.penalizes and turn.token_ids:
            choice.token_ids, choice.token_count = turn.token_ids.buffer_info()
            choice.prompt_count = turn.prompt_count
        return choice

    def plain_choice(self, logits: Floats, turn: Turn) -> Chosen:
        """Return what the pass would choose, where there are no kernels."""
        number, wanted = draw(self._seed, turn.position), self._params.logprobs
        token_id = choose(logits, self._params, number, turn.token_ids, turn.prompt_count)
        return Chosen(token_id, None if wanted is None else likelihoods(logits, token_id, wanted))


class Chosen(NamedTuple):
    """The next token of one row."""

    token_id: int
    likelihoods: Likelihoods | None = None
    """Where they are wanted."""


class Turn(NamedTuple):
    """Whose token it is, and which."""

    sampler: Sampler
    position: int
    """In the answer."""
    token_ids: array[int] = NO_TOKENS
    """Of prompt and answer so far; empty where no penalty goes by them."""

    @property
    def prompt_count(self) -> int:
        return len(self.token_ids) - self.position if self.token_ids else 0


def choose_together(logits: Floats, turns: Sequence[Turn]) -> list[Chosen | Exception]:
    """Return each row's token, or what is wrong with that row and no other. Args: logits: float32 [row, vocab_size]."""
    usual = [row for row, turn in enumerate(turns) if type(turn.sampler) is Sampler]
    if len(usual) == len(turns):
        return _chosen_of(turns, logits)
    chosen: dict[int, Chosen | Exception] = {}
    if usual:
        chosen = dict(zip(usual, _chosen_of([turns[row] for row in usual], logits[usual]), strict=True))
    for row, turn in enumerate(turns):
        if row in chosen:
            continue
        try:
            chosen[row] = Chosen(turn.sampler.sample(logits[row], turn.position))
        except Exception as error:  # noqa: BLE001 - one request's; whoever waits for it hears of it
            chosen[row] = error
    return [chosen[row] for row in range(len(turns))]


def _chosen_of(turns: Sequence[Turn], logits: Floats) -> list[Chosen | Exception]:
    if matmul.kernels.functions is None:
        return [
            turn.sampler.plain_choice(row, turn) if np.isfinite(row).all() else _not_finite()
            for turn, row in zip(turns, logits, strict=True)
        ]
    logits = np.ascontiguousarray(logits)
    choices = (Choice * len(turns))(*[turn.sampler.choice(turn) for turn in turns])
    likeliest = [_room_for_likeliest(choice, turn, logits) for choice, turn in zip(choices, turns, strict=True)]
    outcome = matmul.functions().shardmesh_choose_tokens(address(logits), logits.shape[1], choices, len(turns))
    if outcome == Outcome.NO_MEMORY:
        raise MemoryError(f"there is no memory to choose the next tokens of {counted(len(turns), 'sequence')}")
    assert outcome == Outcome.DONE, "the shape was checked, and tokens when the sequence was made"
    return [_chosen(*one) for one in zip(choices, likeliest, logits, strict=True)]


def _room_for_likeliest(choice: Choice, turn: Turn, logits: Floats) -> array[int]:
    """Have the pass tell the likeliest tokens, if they are wanted; return where it writes them."""
    wanted = turn.sampler.params.logprobs
    ids = array("i", bytes(4 * min(wanted or 0, logits.shape[1])))
    if wanted is not None:
        choice.has_total, choice.likeliest_count = 1, len(ids)
        choice.likeliest_ids = ids.buffer_info()[0]
    return ids


def _chosen(choice: Choice, likeliest: array[int], logits: Floats) -> Chosen | Exception:
    if choice.token_id < 0:
        return _not_finite()
    if not choice.has_total:
        return Chosen(choice.token_id)
    own, *others = (
        logprob(float(logits[token_id]), choice.highest, choice.total) for token_id in (choice.token_id, *likeliest)
    )
    return Chosen(choice.token_id, Likelihoods(own, tuple(zip(likeliest, others, strict=True))))


def _not_finite() -> NodeFault:
    return NodeFault("the logits hold numbers that are not finite: a node or the head computed them wrongly")


def _size(count: int) -> int:
    """Return a number of tokens that fits the pass's integers: more than any vocabulary has is all."""
    return min(count, MOST_TOKENS)
