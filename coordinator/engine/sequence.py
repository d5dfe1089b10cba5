"""One request's tokens and where it stands. Covers: what to compute next, when to stop. Pure state, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.errors import InputError, PromptTooLong
from coordinator.engine.sampler import Sampler
from coordinator.tokenizer import Tokenizer

STOP = "stop"
LENGTH = "length"


@dataclass(kw_only=True)
class Sequence:
    """A prompt and the answer so far. `computed_count` positions have gone through the model."""

    sequence_id: int
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    eos_ids: frozenset[int]
    """Tokens that end the answer; empty to go on in any case."""
    sampler: Sampler
    generated_ids: list[int] = field(default_factory=list)
    computed_count: int = 0
    finish_reason: str | None = None
    """None while it runs; STOP after an end token, LENGTH after max_new_tokens."""

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise InputError("the prompt has no token")
        if self.max_new_tokens < 1:
            raise InputError(f"--length is {self.max_new_tokens}; it must be at least 1")

    def check_fits(self, max_position_count: int) -> None:
        """Raise PromptTooLong unless prompt and answer fit the model's context."""
        if self.position_capacity > max_position_count:
            raise PromptTooLong(
                f"the prompt has {len(self.prompt_ids)} tokens and --length asks for {self.max_new_tokens}; "
                f"this model's context is {max_position_count}: shorten the prompt or the answer"
            )

    @property
    def position_capacity(self) -> int:
        """Positions that will be computed at most; the last token's own position never is."""
        return len(self.prompt_ids) + self.max_new_tokens - 1

    @property
    def is_prefilling(self) -> bool:
        return self.computed_count < len(self.prompt_ids)

    def next_rows(self, most: int) -> list[int]:
        """Return the tokens of the next rows: a piece of the prompt, or the newest token."""
        if self.is_prefilling:
            return list(self.prompt_ids[self.computed_count : self.computed_count + most])
        return [self.generated_ids[-1]]

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


def make_sequence(
    tokenizer: Tokenizer, prompt: str, *, chat: bool, length: int, ignore_eos: bool, sampler: Sampler,
    sequence_id: int = 1,
) -> Sequence:  # fmt: skip
    """Return a prompt as the model sees it. Raises: InputError: nothing to start from, or no chat template."""
    if chat:
        text = tokenizer.chat_prompt([{"role": "user", "content": prompt}])
        prompt_ids = tokenizer.encode(text, add_special_tokens=False)
    else:
        prompt_ids = tokenizer.encode(prompt)
    if not prompt_ids:
        if tokenizer.bos_id is None:
            raise InputError("the prompt is empty and this model has no BOS token to start from; give a --prompt")
        prompt_ids = [tokenizer.bos_id]
    return Sequence(
        sequence_id=sequence_id, prompt_ids=tuple(prompt_ids), max_new_tokens=length,
        eos_ids=frozenset() if ignore_eos else tokenizer.eos_ids, sampler=sampler,
    )  # fmt: skip
