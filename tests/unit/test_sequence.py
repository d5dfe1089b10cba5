"""Does a sequence know what to compute next, how much room it needs, and when it is over?

Covers: coordinator/engine/sequence.py. Does not cover: several of them in a sweep (tests/property/test_batch.py).
"""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import InputError, PromptTooLong
from coordinator.engine.sampler import Sampler, SamplingParams
from coordinator.engine.sequence import LENGTH, STOP, Sequence

EOS = 2


def make_sequence(**changes: Any) -> Sequence:
    """Return a sequence of three prompt tokens and up to four new ones."""
    fields: dict[str, Any] = {
        "sequence_id": 1, "prompt_ids": (7, 8, 9), "max_new_tokens": 4, "eos_ids": frozenset({EOS}),
        "sampler": Sampler(SamplingParams(temperature=0), 0),
    }  # fmt: skip
    return Sequence(**{**fields, **changes})


def test_a_prompt_needs_a_token_and_an_answer_too() -> None:
    """Nothing can be predicted from nothing, and --length 0 asks for no answer."""
    with pytest.raises(InputError, match="no token"):
        make_sequence(prompt_ids=())
    for length in (0, -1):
        with pytest.raises(InputError, match=f"--length is {length}"):
            make_sequence(max_new_tokens=length)


def test_the_prompt_is_read_in_pieces_and_then_each_new_token_alone() -> None:
    """Rows start where the computed positions end."""
    sequence = make_sequence()
    assert sequence.next_rows(2) == [7, 8]
    assert sequence.next_rows(99) == [7, 8, 9]
    sequence.computed_count = 2
    assert sequence.is_prefilling
    assert sequence.next_rows(2) == [9]
    sequence.computed_count = 3
    sequence.append(5)
    assert not sequence.is_prefilling
    assert sequence.next_rows(2) == [5]


def test_the_answer_ends_with_its_length() -> None:
    """The last token asked for ends it, and not the one before."""
    sequence = make_sequence(max_new_tokens=2)
    sequence.append(5)
    assert sequence.finish_reason is None
    sequence.append(5)
    assert (sequence.finish_reason, sequence.generated_ids) == (LENGTH, [5, 5])


def test_an_end_token_ends_the_answer_and_is_part_of_its_tokens() -> None:
    """An end token as the very last one asked for counts as an end, not as a length."""
    for length in (4, 1):
        sequence = make_sequence(max_new_tokens=length)
        sequence.append(EOS)
        assert (sequence.finish_reason, sequence.generated_ids) == (STOP, [EOS])


def test_without_end_tokens_the_answer_goes_on_past_them() -> None:
    """--ignore-eos is an empty set of end tokens."""
    sequence = make_sequence(eos_ids=frozenset())
    sequence.append(EOS)
    assert sequence.finish_reason is None


def test_room_is_reserved_for_all_but_the_last_token() -> None:
    """The last token is never computed, so three and four tokens take six positions."""
    assert make_sequence().position_capacity == 6
    assert make_sequence(max_new_tokens=1).position_capacity == 3


def test_what_exceeds_the_context_is_refused_with_all_three_numbers() -> None:
    """A person learns how long prompt, answer and context are; what fits exactly is taken."""
    make_sequence().check_fits(6)
    with pytest.raises(PromptTooLong, match=r"3 tokens and --length asks for 4.* context is 5"):
        make_sequence().check_fits(5)


def test_the_rotary_length_of_a_prompt_is_the_whole_prompts() -> None:
    """In chunks or at once, a prompt is rotated alike; then the length grows by one a token."""
    sequence = make_sequence()
    assert sequence.rotary_length(2) == 3
    sequence.computed_count = 2
    assert sequence.rotary_length(1) == 3
    sequence.computed_count = 3
    assert sequence.rotary_length(1) == 4
    sequence.computed_count = 4
    assert sequence.rotary_length(1) == 5


def test_after_a_loss_the_prompt_is_read_again_and_then_the_answer() -> None:
    """What is computed is all that counts: rows never mix prompt and answer, and are as many as a sweep has."""
    sequence = make_sequence(max_new_tokens=99)
    for token_id in range(100, 170):
        sequence.append(token_id)
    assert (sequence.token_count, sequence.is_behind) == (73, True)
    assert sequence.next_rows(99) == [7, 8, 9]
    sequence.computed_count = 3
    assert sequence.next_rows(99) == list(range(100, 170))
    assert sequence.next_rows(5) == [100, 101, 102, 103, 104]
    sequence.computed_count = 3 + 69
    assert sequence.next_rows(99) == [169]
    assert not sequence.is_behind


def test_a_sequence_is_behind_while_more_than_its_newest_token_is_to_be_computed() -> None:
    """A prompt of one token is behind too: its answers wait for those that stream already."""
    sequence = make_sequence(prompt_ids=(7,))
    assert sequence.is_behind
    sequence.computed_count = 1
    sequence.append(5)
    assert not sequence.is_behind
    sequence.append(6)
    assert sequence.is_behind


def test_only_what_is_penalized_is_chosen_by_the_tokens_before_it() -> None:
    """Those of prompt and answer, told apart by the position, however many came since the last turn."""
    turn = make_sequence().turn()
    assert (turn.position, list(turn.token_ids)) == (0, [])
    sequence = make_sequence(sampler=Sampler(SamplingParams(presence_penalty=1.0), 0))
    for new_ids in ([], [5], [6, 5]):
        for token_id in new_ids:
            sequence.append(token_id)
        turn = sequence.turn()
        assert list(turn.token_ids) == [7, 8, 9, *sequence.generated_ids]
        assert (turn.position, turn.prompt_count) == (len(sequence.generated_ids), 3)
