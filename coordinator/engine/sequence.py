"""One request's tokens and where it stands. Covers: what to compute next, when to stop. Pure state, no I/O.

The tokens are the prompt's and the answer's, one after another; `computed_count` of them have gone through the model on
the ranks that are there now. So what a sequence that was put aside has to do is what any has: compute the rest.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.errors import InputError, PromptTooLong
from common.wording import counted
from coordinator.engine.likelihoods import Likelihoods

if TYPE_CHECKING:  # it imports numpy, which a plan has no use for
    from coordinator.engine.sampler import Sampler, Turn

STOP = "stop"
LENGTH = "length"
CANCELLED = "cancelled"
ERROR = "error"


@dataclass(kw_only=True, eq=False)
class Sequence:
    """A prompt and the answer so far."""

    sequence_id: int
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    eos_ids: frozenset[int]
    """Tokens that end the answer; empty to go on in any case."""
    sampler: Sampler
    generated_ids: list[int] = field(default_factory=list)
    computed_count: int = 0
    request_id: str = ""
    """What its request is called in the nodes' logs; empty: nothing."""
    begun_at: float | None = None
    """When its first rows went to nodes (time.perf_counter); None: it waits."""
    likelihoods: deque[Likelihoods] = field(default_factory=deque, init=False, repr=False)
    """Of the newest tokens, where they are wanted: who tells a token takes its own off the left."""
    all_ids: array[int] = field(default_factory=lambda: array("i"), init=False, repr=False)
    """Tokens of prompt and answer as 32 bits each, as far as a turn has needed them."""
    finish_reason: str | None = None
    """None while it runs; STOP after an end token or text, LENGTH after max_new_tokens, CANCELLED, ERROR."""

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise InputError("the prompt has no token")
        if self.max_new_tokens < 1:
            raise InputError(f"--length is {self.max_new_tokens}; it must be at least 1")

    def check_fits(self, max_position_count: int) -> None:
        """Raise PromptTooLong unless prompt and answer fit the model's context."""
        if self.position_capacity > max_position_count:
            raise PromptTooLong(
                f"the prompt has {counted(len(self.prompt_ids), 'token')} and --length asks for {self.max_new_tokens}; "
                f"this model's context is {max_position_count}: shorten the prompt or the answer"
            )

    @property
    def position_capacity(self) -> int:
        """Positions that will be computed at most; the last token's own position never is."""
        return len(self.prompt_ids) + self.max_new_tokens - 1

    @property
    def token_count(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt_ids) + len(self.generated_ids)

    def turn(self) -> Turn:
        """Return what its next token is chosen by."""
        from coordinator.engine.sampler import Turn  # numpy, which a plan has no use for

        position = len(self.generated_ids)
        if not self.sampler.params.penalizes:
            return Turn(self.sampler, position)
        if not self.all_ids:
            self.all_ids.extend(self.prompt_ids)
        self.all_ids.extend(self.generated_ids[len(self.all_ids) - len(self.prompt_ids) :])
        return Turn(self.sampler, position, self.all_ids)

    @property
    def is_prefilling(self) -> bool:
        return self.computed_count < len(self.prompt_ids)

    @property
    def is_behind(self) -> bool:
        """Whether more than the newest token is to be computed: a prompt, or an answer that is replayed."""
        return self.is_prefilling or self.computed_count < self.token_count - 1

    def next_rows(self, most: int) -> list[int]:
        """Return the tokens of the next rows: a piece of the prompt, or of the answer, which is one token mostly."""
        if self.is_prefilling:
            return list(self.prompt_ids[self.computed_count : self.computed_count + most])
        first = self.computed_count - len(self.prompt_ids)
        return self.generated_ids[first : first + most]

    def rotary_length(self, row_count: int) -> int:
        """Return the context length that dynamic rotary scaling takes for the next rows."""
        return len(self.prompt_ids) if self.is_prefilling else self.computed_count + row_count

    def append(self, token_id: int) -> None:
        """Take the next token of the answer."""
        self.generated_ids.append(token_id)
        if token_id in self.eos_ids:
            self.finish_reason = STOP
        elif len(self.generated_ids) >= self.max_new_tokens:
            self.finish_reason = LENGTH
