"""Calls that choose next tokens, in a recording: all options, vocabularies with every kind of tail.

Covers: common/native/sampling.c and common/native/weigh.c. Does not cover: whether the choices are right
(tests/property/test_choices.py).
"""

from __future__ import annotations

import numpy as np

from common.native.choices import Choice
from tests.support.kernel_calls import KernelCalls
from tests.support.recorded_calls import Laid, Place, in_a_row, laid

VOCABULARIES = (1, 2, 15, 16, 17, 33, 700, 5003)
LIKELIEST = 5


def choices(made: KernelCalls, count: int) -> None:
    """Some rows each, options of their own; now and then a row with a logit that is no number."""
    for number in range(count):
        vocab_size, row_count = made.one_of(*VOCABULARIES), made.one_of(1, 2, 5)
        logits = made.noise(row_count, vocab_size)
        if number % 5 == 0:
            logits = np.rint(logits)
        if number % 7 == 0:
            logits[row_count // 2, vocab_size // 2] = np.nan
        made.use_threads()
        told = made.calls.put(in_a_row([_choice(made, vocab_size) for _ in range(row_count)]))
        made.calls.call("choose_tokens", made.calls.put(logits), vocab_size, told, row_count)


def _choice(made: KernelCalls, vocab_size: int) -> Laid:
    options: dict[str, Place | float | None] = {
        "number": made.one_of(0, 1, 250, 500, 999) / 1000, "top_p": made.one_of(1, 500, 900, 1000) / 1000,
        "temperature": made.one_of(0, 3, 8, 10, 25) / 10, "min_p": made.one_of(0, 0, 5) / 100,
        "top_k": made.one_of(0, 1, 12, 400), "repetition": 1.0, "has_total": made.one_of(0, 1),
        "likeliest_ids": made.calls.put(np.zeros(LIKELIEST, np.int32)),
        "likeliest_count": min(LIKELIEST, vocab_size),
    }  # fmt: skip
    if made.one_of(0, 1):
        tokens = np.array([made.one_of(*range(vocab_size)) for _ in range(9)], np.int32)
        options |= {
            "repetition": made.one_of(5, 10, 13) / 10, "presence": made.one_of(0, 1, -2), "frequency": 0.3,
            "token_ids": made.calls.put(tokens), "token_count": 9, "prompt_count": made.one_of(0, 4, 9),
        }  # fmt: skip
    if made.one_of(0, 1):
        ids, biases = np.arange(min(3, vocab_size), dtype=np.int32), np.array([-100, 2.5, 0.5], np.float32)
        options |= {
            "biased_ids": made.calls.put(ids), "biases": made.calls.put(biases), "bias_count": len(ids),
        }  # fmt: skip
    return laid(Choice, **options)
