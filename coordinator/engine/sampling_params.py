"""How freely is the next token chosen? Values that were asked for, checked.

Does not cover: choosing (sampler.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from common.errors import InputError
from common.wording import counted

SEED_LIMITS = (-(1 << 63), (1 << 64) - 1)
"""Least and greatest seed: 64 bits, with a sign or without."""
MOST_PENALTY, MOST_BIAS, MOST_LOGPROBS = 2.0, 100.0, 20
"""As in OpenAI's API."""
MOST_BIASED, ID_LIMIT = 1024, 1 << 31
"""So many tokens may have a bias; ids have 32 bits."""
REPETITION_LIMITS = (0.01, 100.0)
"""Within these no logit that a model has becomes infinite."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How freely the next token is chosen; checked at birth.

    Raises: InputError: a value outside its range, named by its option.
    """

    temperature: float = 1.0
    """Logits are divided by it; 0, or next to 0, takes the most likely token always."""
    top_k: int = 0
    """Only the k most likely tokens stay; 0 for all."""
    top_p: float = 0.9
    """Only the fewest most likely tokens stay whose probabilities reach p together; 1 for all."""
    min_p: float = 0.0
    """Only tokens stay that are at least so many times as likely as the likeliest; 0 for all."""
    repetition_penalty: float = 1.0
    """Logits of tokens of prompt and answer are divided by it, negative ones multiplied; 1 for as they are."""
    presence_penalty: float = 0.0
    """Taken from the logits of tokens that the answer has."""
    frequency_penalty: float = 0.0
    """Taken from the logits of tokens that the answer has, as often as it has them."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of tokens, by id, before everything else."""
    logprobs: int | None = None
    """How many likeliest tokens are told with each token, beside its own likelihood; None: neither."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"--temperature is {self.temperature}; a number of 0 (greedy) or more is needed")
        if self.top_k < 0:
            raise InputError(f"--k is {self.top_k}; a whole number of 0 (off) or more is needed")
        if not 0 < self.top_p <= 1:
            raise InputError(f"--p is {self.top_p}; a number above 0 and up to 1 (off) is needed")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"--min-p is {self.min_p}; a number from 0 (off) to 1 is needed")
        least, most = REPETITION_LIMITS
        if not least <= self.repetition_penalty <= most:
            raise InputError(
                f"--repetition-penalty is {self.repetition_penalty}; from {least} to {most}, 1 for none, is needed"
            )
        for option, penalty in (("presence", self.presence_penalty), ("frequency", self.frequency_penalty)):
            if not -MOST_PENALTY <= penalty <= MOST_PENALTY:
                raise InputError(f"--{option}-penalty is {penalty}; a number from -2 to 2, 0 for none, is needed")
        if len(self.logit_bias) > MOST_BIASED:
            raise InputError(
                f"--logit-bias is given for {counted(len(self.logit_bias), 'token')}; {MOST_BIASED} is the most"
            )
        for token_id, bias in self.logit_bias.items():
            if not 0 <= token_id < ID_LIMIT or not -MOST_BIAS <= bias <= MOST_BIAS:
                raise InputError(
                    f"--logit-bias is {token_id}={bias}; a token's id and a number from -100 to 100 are needed"
                )
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise InputError(f"--logprobs is {self.logprobs}; a whole number from 0 to {MOST_LOGPROBS} is needed")

    @property
    def penalizes(self) -> bool:
        """Whether the choice depends on the tokens that are there."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)

    def check_fits(self, vocab_size: int) -> None:
        """Raise InputError where a biased token is none of the vocabulary."""
        if (largest := max(self.logit_bias, default=0)) >= vocab_size:
            raise InputError(f"--logit-bias names token {largest}; this model's vocabulary has {vocab_size}")


def check_seed(seed: int) -> None:
    """Raise InputError unless the seed fits 64 bits."""
    if not SEED_LIMITS[0] <= seed <= SEED_LIMITS[1]:
        raise InputError(f"--seed is {seed}; it must fit 64 bits")
