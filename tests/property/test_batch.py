"""Does every sweep fit, does every sequence get on, and does a prompt go through the model once and whole?

Covers: coordinator/engine/batch.py with coordinator/engine/sequence.py, for any mixture of prompts.
Does not cover: running sweeps (coordinator/engine/engine.py).
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.model.sweep_size import MAX_INPUT_BYTES, MAX_ROWS, rows_per_sweep
from coordinator.engine.batch import BatchPart, next_batch
from coordinator.engine.sampler import Sampler, SamplingParams
from coordinator.engine.sequence import Sequence

SAMPLER = Sampler(SamplingParams(temperature=0), 0)
requests = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=6)
"""(prompt length, answer length) of each sequence, in order of arrival."""


def make_sequence(number: int, prompt_length: int, answer_length: int) -> Sequence:
    """Return a sequence whose prompt tokens tell their positions."""
    return Sequence(
        sequence_id=number, prompt_ids=tuple(range(1000 * number, 1000 * number + prompt_length)),
        max_new_tokens=answer_length, eos_ids=frozenset(), sampler=SAMPLER,
    )  # fmt: skip


def compute(batch: list[BatchPart]) -> None:
    """Do to the sequences what the engine does after a sweep."""
    for part in batch:
        part.sequence.computed_count += len(part.token_ids)
        if part.logit_rows:
            part.sequence.append(-len(part.sequence.generated_ids) - 1)


def sweeps_of(sequences: list[Sequence], most_rows: int) -> list[list[BatchPart]]:
    """Run until nothing is left to do; fail when that takes more sweeps than there are rows in all."""
    sweeps = []
    row_count = sum(sequence.position_capacity for sequence in sequences)
    while batch := next_batch(sequences, most_rows):
        compute(batch)
        sweeps.append(batch)
        assert len(sweeps) <= row_count
    return sweeps


@given(wanted=requests, most_rows=st.integers(1, 30))
def test_no_sweep_has_more_rows_than_fit_and_none_is_empty(wanted: list[tuple[int, int]], most_rows: int) -> None:
    """The limit bounds a round's message, and with it what a node must hold for it."""
    sequences = [make_sequence(number, *sizes) for number, sizes in enumerate(wanted, start=1)]
    for batch in sweeps_of(sequences, most_rows):
        assert 1 <= sum(len(part.token_ids) for part in batch) <= most_rows
        assert all(part.token_ids for part in batch)
        assert len({part.sequence.sequence_id for part in batch}) == len(batch)


@given(wanted=requests, most_rows=st.integers(1, 30))
def test_every_sequence_ends_with_its_whole_answer(wanted: list[tuple[int, int]], most_rows: int) -> None:
    """Nobody starves: all prompts are read and all answers reach their length."""
    sequences = [make_sequence(number, *sizes) for number, sizes in enumerate(wanted, start=1)]
    sweeps_of(sequences, most_rows)
    for sequence, (_, answer_length) in zip(sequences, wanted, strict=True):
        assert len(sequence.generated_ids) == answer_length
        assert sequence.computed_count == sequence.position_capacity
        assert sequence.finish_reason == "length"


@given(wanted=requests, most_rows=st.integers(1, 30))
def test_the_rows_of_a_sequence_are_its_tokens_each_once_in_order(
    wanted: list[tuple[int, int]], most_rows: int
) -> None:
    """Chunks cover the prompt exactly, then comes each new token but the last; positions have no gap."""
    sequences = [make_sequence(number, *sizes) for number, sizes in enumerate(wanted, start=1)]
    parts = [part for batch in sweeps_of(sequences, most_rows) for part in batch]
    for sequence in sequences:
        own = [part for part in parts if part.sequence is sequence]
        tokens = [token for part in own for token in part.token_ids]
        assert tokens == [*sequence.prompt_ids, *sequence.generated_ids[:-1]]
        position = 0
        for part in own:
            assert part.first_position == position
            position += len(part.token_ids)


@given(wanted=requests, most_rows=st.integers(1, 30))
def test_answers_that_stream_are_not_held_up_by_prompts(wanted: list[tuple[int, int]], most_rows: int) -> None:
    """As many decode steps as fit are in every sweep, oldest first; what is left goes to the oldest prompt."""
    sequences = [make_sequence(number, *sizes) for number, sizes in enumerate(wanted, start=1)]
    while True:
        running = [sequence for sequence in sequences if sequence.finish_reason is None]
        decoding = [sequence.sequence_id for sequence in running if not sequence.is_prefilling]
        prefilling = [sequence.sequence_id for sequence in running if sequence.is_prefilling]
        batch = next_batch(sequences, most_rows)
        if not batch:
            break
        ids = [part.sequence.sequence_id for part in batch]
        assert ids == (decoding + prefilling)[: len(ids)]
        assert ids[: len(decoding)] == decoding[:most_rows]
        full = sum(len(part.token_ids) for part in batch) == most_rows
        assert full or len(ids) == len(running)
        compute(batch)


@given(wanted=requests, most_rows=st.integers(1, 30))
def test_dynamic_rotary_length_is_the_prompts_and_then_the_positions(
    wanted: list[tuple[int, int]], most_rows: int
) -> None:
    """A prompt read in chunks is rotated as one read whole; afterwards the context is what is there."""
    sequences = [make_sequence(number, *sizes) for number, sizes in enumerate(wanted, start=1)]
    for part in (part for batch in sweeps_of(sequences, most_rows) for part in batch):
        prompt_length = len(part.sequence.prompt_ids)
        is_prompt = part.first_position < prompt_length
        assert part.rotary_length == (prompt_length if is_prompt else part.first_position + 1)


@given(wanted=requests, most_rows=st.integers(1, 30))
def test_logits_are_wanted_of_the_row_that_is_a_sequences_newest_and_of_no_other(
    wanted: list[tuple[int, int]], most_rows: int
) -> None:
    """A part that leaves something of its prompt to be read predicts nothing; any other predicts one token."""
    sequences = [make_sequence(number, *sizes) for number, sizes in enumerate(wanted, start=1)]
    while batch := next_batch(sequences, most_rows):
        for part in batch:
            stop = part.first_position + len(part.token_ids)
            assert part.logit_rows == ((len(part.token_ids) - 1,) if stop == part.sequence.token_count else ())
        compute(batch)


@given(hidden_size=st.integers(1, 1 << 24))
def test_a_sweeps_input_stays_below_the_limit(hidden_size: int) -> None:
    """However wide the model, at least one row fits, and never more than MAX_ROWS or MAX_INPUT_BYTES."""
    rows = rows_per_sweep(hidden_size)
    assert 1 <= rows <= MAX_ROWS
    assert rows == 1 or rows * hidden_size * 4 <= MAX_INPUT_BYTES
    assert rows == MAX_ROWS or (rows + 1) * hidden_size * 4 > MAX_INPUT_BYTES


def test_an_empty_batch_means_nothing_runs() -> None:
    """Finished sequences take no rows."""
    done = make_sequence(1, 2, 1)
    sweeps_of([done], 8)
    assert next_batch([done], 8) == []
    assert next_batch([], 8) == []
