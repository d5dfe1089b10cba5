"""All calls that show that two builds of the library compute the same, in a recording.

Covers: how many of each. Does not cover: which (kernel_calls.py, encoded_calls.py, choice_calls.py).
"""

from __future__ import annotations

from tests.support.choice_calls import choices
from tests.support.encoded_calls import ENCODED_REFUSED_COUNT, encoded_products, encoded_tiles, packed_and_back, refused
from tests.support.kernel_calls import REFUSED_COUNT, KernelCalls
from tests.support.recorded_calls import Calls


def record(scale: float = 1.0) -> Calls:
    """Return a recording. Args: scale: how many calls of each kind."""
    made = KernelCalls()
    made.products(int(240 * scale))
    made.every_number_of_16_bits()
    made.sums()
    made.steps(int(40 * scale))
    made.feed_forwards(int(60 * scale))
    made.attentions(int(56 * scale))
    made.conversions(int(30 * scale))
    for is_cached in (False, True):
        for has_all in (False, True):
            made.layers(is_cached=is_cached, has_all=has_all)
    encoded_products(made, int(160 * scale))
    encoded_tiles(made, int(24 * scale))
    made.calls.call("use_activations", 1)
    encoded_products(made, int(96 * scale))
    encoded_tiles(made, int(16 * scale))
    made.calls.call("use_activations", 0)
    choices(made, int(60 * scale))
    packed_and_back(made)
    made.what_is_refused()
    refused(made)
    return made.calls


def outcomes(calls: Calls, answers: list[float]) -> dict[str, set[float]]:
    """Return what each function answered to calls that are not to be refused; sums are left out."""
    found: dict[str, set[float]] = {}
    for (name, _), answer in list(zip(calls.calls, answers, strict=True))[: -REFUSED_COUNT - ENCODED_REFUSED_COUNT]:
        if name not in ("sum", "use_threads"):
            found.setdefault(name, set()).add(answer)
    return found
