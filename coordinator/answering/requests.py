"""What somebody asks of a model, and what comes back: whoever asks, by whatever protocol.

    Ask in; Started, Reading while that takes long, then Token and Notice as they come, last Finished or Failed out

Covers: the words between askers and answers; turning an Ask into tokens, which may be slow and may fail.
Does not cover: running it (answers.py), protocols (cli/, program/).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.errors import InputError
from common.program.request_id import new_request_id
from coordinator.engine.likelihoods import Likelihoods
from coordinator.engine.sequence import Sequence
from coordinator.engine.timings import Timings

if TYPE_CHECKING:  # who asks another process needs none of them
    from common.model.model_spec import ModelSpec
    from coordinator.engine.sampler import SamplingParams
    from coordinator.tokenizer import Tokenizer

MOST_STOP_TEXTS = 16


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request. It knows no protocol."""

    model: str = ""
    """A model's name; empty: the only one."""
    prompt: str = ""
    """The text to go on from; empty starts from the model's first token."""
    messages: tuple[Message, ...] = ()
    """Instead of a prompt: turns, for the model's chat template."""
    sampling: SamplingParams
    seed: int
    most_tokens: int
    stop: tuple[str, ...] = ()
    """Texts that end the answer before they begin."""
    ignore_eos: bool = False
    who: str = ""
    """Who asks, for the log of a program that serves others; empty: its own user."""
    request_id: str = field(default_factory=new_request_id)
    """What it is called in the logs of all programs: as whoever asks calls it, or made up."""

    def __post_init__(self) -> None:
        if self.prompt and self.messages:
            raise InputError("a request has a prompt or messages, not both")
        if len(self.stop) > MOST_STOP_TEXTS or not all(self.stop):
            raise InputError(f"at most {MOST_STOP_TEXTS} stop texts, none of them empty")


@dataclass(frozen=True, kw_only=True)
class Started:
    """The request is accepted."""

    model: str
    prompt_token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The first token is still to come: so much of the prompt has been read. Not of short prompts."""

    read_count: int
    prompt_count: int


@dataclass(frozen=True, kw_only=True)
class Token:
    """One more token, and the text that is certain with it: whole characters only, perhaps none."""

    token_id: int
    text: str
    likelihoods: Likelihoods | None = None
    """Where the request wants them."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Nothing has failed, but something is not as it should be: a sentence for a person."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The answer is complete."""

    reason: str
    text: str
    """The rest of it."""
    timings: Timings
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    """Bytes of every process, "coordinator" or "node0" and on; empty where a node was not reached."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """There is no answer, or no more of it."""

    error: Exception


Event = Started | Reading | Token | Notice | Finished | Failed


def prepare(ask: Ask, tokenizer: Tokenizer, spec: ModelSpec) -> Sequence:
    """Return a request as the model sees it; its sequence id is still to be given.

    Raises: InputError: nothing to start from, no chat template, a value out of its range; PromptTooLong.
    """
    from coordinator.engine.sampler import Sampler  # numpy, which an Ask has no use for

    sequence = Sequence(
        sequence_id=0, prompt_ids=tuple(_prompt_ids(ask, tokenizer)), max_new_tokens=ask.most_tokens,
        eos_ids=frozenset() if ask.ignore_eos else tokenizer.eos_ids, sampler=Sampler(ask.sampling, ask.seed),
        request_id=ask.request_id,
    )  # fmt: skip
    sequence.check_fits(spec.max_position_count)
    ask.sampling.check_fits(spec.vocab_size)
    if (largest := max(sequence.prompt_ids)) >= spec.vocab_size:
        raise InputError(f"token {largest} is outside this model's vocabulary of {spec.vocab_size}")
    return sequence


def _prompt_ids(ask: Ask, tokenizer: Tokenizer) -> list[int]:
    if ask.messages:
        turns = [{"role": message.role, "content": message.content} for message in ask.messages]
        prompt_ids = tokenizer.encode(tokenizer.chat_prompt(turns), add_special_tokens=False)
    else:
        prompt_ids = tokenizer.encode(ask.prompt)
    if not prompt_ids:
        if tokenizer.bos_id is None:
            raise InputError("the prompt is empty and this model has no BOS token to start from; give a --prompt")
        prompt_ids = [tokenizer.bos_id]
    return list(prompt_ids)
