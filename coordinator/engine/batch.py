"""Which rows go into the next sweep: some of each running sequence, together not more than fit. Pure.

Covers: prefill in chunks beside decode steps. Does not cover: who runs (schedule.py), running the sweep (engine.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from coordinator.engine.sequence import Sequence


@dataclass(frozen=True, kw_only=True)
class BatchPart:
    """Rows of one sequence in a sweep."""

    sequence: Sequence
    token_ids: tuple[int, ...]
    first_position: int
    rotary_length: int
    logit_rows: tuple[int, ...] = ()
    """Which of these rows want logits; the last one's are the next token's."""

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield (first position, row count, rotary length): rows of a prompt together, of an answer each as it was."""
        if self.first_position < len(self.sequence.prompt_ids):
            yield self.first_position, len(self.token_ids), self.rotary_length
            return
        for position in range(self.first_position, self.first_position + len(self.token_ids)):
            yield position, 1, position + 1


def next_batch(sequences: Iterable[Sequence], most_rows: int) -> list[BatchPart]:
    """Return the rows of the next sweep, oldest sequence first; empty when nothing runs.

    Decode steps go first, one row each, so that a long prompt does not hold up answers that stream already.
    """
    running = [sequence for sequence in sequences if sequence.finish_reason is None]
    running.sort(key=lambda sequence: sequence.is_behind)  # stable: arrival order within each kind
    parts = []
    room = most_rows
    for sequence in running:
        if not room:
            break
        token_ids = sequence.next_rows(room)
        is_last = sequence.computed_count + len(token_ids) == sequence.token_count
        parts.append(BatchPart(
            sequence=sequence, token_ids=tuple(token_ids), first_position=sequence.computed_count,
            rotary_length=sequence.rotary_length(len(token_ids)),
            logit_rows=(len(token_ids) - 1,) if is_last else (),
        ))  # fmt: skip
        room -= len(token_ids)
    return parts
