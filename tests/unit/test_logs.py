"""Is an entry of a log one line that a person reads and a program takes apart, whatever is in it?

Does not cover: which entries there are (tests/contract/test_coordinator_log.py).
"""

from __future__ import annotations

import json
import shlex

import pytest

from common.program.logs import entry


def test_an_entry_says_what_happened_and_then_its_values() -> None:
    """In their order; what is not known is left out."""
    found = entry("node lost", node="kitchen", address="10.0.0.7:50051", silent_seconds=3.6123, rank=0, model=None)
    assert found == "node lost node=kitchen address=10.0.0.7:50051 silent_seconds=3.61 rank=0"


@pytest.mark.parametrize(
    "value",
    ["", "the mesh's owner", 'a "b"', "a=b", "one\ntwo", "\x1b[2J", "\u202e", "node lost node=attic", "back\\slash"],
)
def test_no_value_looks_like_an_entry_of_its_own(value: str) -> None:
    """It is quoted, on one line and without control characters, and a program reads it as it was."""
    found = entry("event", name=value, after=1)
    assert found.isprintable()
    quoted = found.removeprefix("event name=").removesuffix(" after=1")
    assert json.loads(quoted) == value
    assert len(shlex.split(found.encode().decode("ascii"))) >= 2
