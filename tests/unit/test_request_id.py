"""Which names of requests are taken as they are, and what does another one get?

Does not cover: how they travel (tests/contract/test_observing.py).
"""

from __future__ import annotations

import pytest

from common.errors import InputError
from common.program.request_id import MOST_LETTERS, check_request_id, new_request_id, taken_request_id


@pytest.mark.parametrize("text", ["a", "ticket 4711", "x" * MOST_LETTERS, 'say="hello"'])
def test_a_printable_name_is_taken_as_it_is(text: str) -> None:
    """Whoever asks finds their request again by it."""
    assert taken_request_id(text) == text
    check_request_id(text)


def test_a_name_that_was_made_up_can_be_given_again() -> None:
    """Who has it from an answer's metadata asks by it."""
    name = new_request_id()
    assert taken_request_id(name) == name
    check_request_id(name)


@pytest.mark.parametrize("text", ["", "x" * (MOST_LETTERS + 1), "a\nb", "\x1b[2J", "\u202e", "ä", " ", " a", "a "])
def test_another_one_gets_a_name_that_is_made_up(text: str) -> None:
    """What cannot be printed, or is too long, is in no log; and who types it is told."""
    taken = taken_request_id(text)
    assert taken != text
    assert len(taken) == 16
    with pytest.raises(InputError, match="--request-id"):
        check_request_id(text)


def test_no_two_made_up_names_are_the_same() -> None:
    """Of any that there will be in a log."""
    assert len({new_request_id() for _ in range(1000)}) == 1000
