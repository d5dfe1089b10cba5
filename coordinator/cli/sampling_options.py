"""Options of how freely tokens are chosen, beyond temperature, k and p; what of them a request takes.

Does not cover: their ranges (coordinator/engine/sampling_params.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from common.errors import InputError

MinPOption = Annotated[
    float, typer.Option(help="Sample from tokens that are at least so many times as likely as the likeliest; 0: all.")
]
RepetitionOption = Annotated[
    float, typer.Option(help="Make tokens of prompt and answer less likely: divide their logits by this; 1: none.")
]
PresenceOption = Annotated[
    float, typer.Option(help="Take this from the logits of tokens that the answer has, from -2 to 2.")
]
FrequencyOption = Annotated[
    float,
    typer.Option(help="Take this from the logits of tokens for each time that the answer has them, from -2 to 2."),
]
BiasOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ID=NUMBER", show_default=False,
        help="Add a number from -100 to 100 to the logit of the token with this id; may be given several times.",
    ),
]  # fmt: skip
LogprobsOption = Annotated[
    int | None,
    typer.Option(
        help="With --json: tell each token's log probability, and so many of the likeliest with theirs, up to 20.",
        show_default=False,
    ),
]
StopOption = Annotated[
    list[str] | None,
    typer.Option(help="End the answer before this text; may be given several times.", show_default=False),
]


def more_sampling(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return these options of a command, named as SamplingParams and GenerateRequest have them.

    Raises: InputError: a bias that is none; likelihoods without a place to be told.
    """
    if params["logprobs"] is not None and not params["json_output"]:
        raise InputError("--logprobs is for --json: text has no place for it")
    names = ("min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logprobs")
    return {**{name: params[name] for name in names}, "logit_bias": parse_bias(params["logit_bias"])}


def parse_bias(given: Sequence[str] | None) -> dict[int, float]:
    """Return what is added to the logit of each token. Raises: InputError: not written ID=NUMBER, or an id twice."""
    found: dict[int, float] = {}
    for text in given or ():
        token_id, _, number = text.partition("=")
        try:
            bias, key = float(number), int(token_id)
        except ValueError as error:
            raise InputError(f"--logit-bias is {text!r}; a token's id, =, and a number are needed: 42=-1.5") from error
        if key in found:
            raise InputError(f"--logit-bias names token {key} twice")
        found[key] = bias
    return found
