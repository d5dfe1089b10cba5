"""What came of advice that was followed, beside what it promised: medians of turns, before and after.

    turns.append((before, slowed.steady()))      # each as `why --json` says it
    check("budget", turns)

Does not cover: following it (slowed_mesh.py), which advice is given (tests/unit/test_advice.py).
"""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from tests.support.slowed_mesh import SLOW

RIGHT_WITHIN, TURNS = 0.3, 3
PLANS = ("split", "node", "without")
"""Advice of which there is one of a kind, whomever it is about."""
Found = dict[str, Any]


def remedy(found: Found, kind: str) -> float:
    """Return what a kind of advice is said to save, seconds of a token; 0: it is not given any more."""
    kinds = [
        one for one in found["advice"] if one["kind"] == kind and (kind in PLANS or one["node"] in ("", SLOW))
    ]  # fmt: skip
    return float(kinds[0]["saved_seconds"]) if kinds else 0.0


def check(kind: str, turns: list[tuple[Found, Found]], *, is_lasting: bool = True) -> None:
    """Compare what was said with what came of it: medians of turns, since neighbours of a shared machine come and go.

    Args: is_lasting: whether what is still said afterwards has not been followed, as where a neighbour takes cores that
    no lifted quota gives; not so of advice that may be given again and again, as one more node.
    """
    promised = statistics.median(remedy(before, kind) - is_lasting * remedy(after, kind) for before, after in turns)
    before, after = (statistics.median(turn[place]["seconds_per_sweep"] for turn in turns) for place in (0, 1))
    ratio = promised / (before - after)
    told = f"{1000 * promised:.0f} ms promised, {1000 * (before - after):.0f} came of it: {ratio:.2f}"
    print(f"{kind}, of {1000 * before:.0f} ms: {told}")
    assert ratio == pytest.approx(1, rel=RIGHT_WITHIN), told
