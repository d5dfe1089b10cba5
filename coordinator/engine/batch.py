"""Which rows go into the next sweep: some of each running sequence, together not more than fit. Pure.

Covers: prefill in chunks beside decode steps. Does not cover: running the sweep (engine.py), how many rows
fit (common/model/sweep_size.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.engine.sequence import Sequence


@dataclass(frozen=True, kw_only=True)
class BatchPart:
    """Rows of one sequence in a sweep."""

    sequence: Sequence
    token_ids: tuple[int, ...]
    first_position: int
    rotary_length: int

    @property
    def completes_prompt(self) -> bool:
        """Whether the last of these rows predicts a token that is wanted."""
        return self.first_position + len(self.token_ids) >= len(self.sequence.prompt_ids)


def next_batch(sequences: Iterable[Sequence], most_rows: int) -> list[BatchPart]:
    """Return the rows of the next sweep, oldest sequence first; empty when nothing runs.

    Decode steps go first, one row each, so that a long prompt does not hold up answers that stream already.
    """
    running = [sequence for sequence in sequences if sequence.finish_reason is None]
    running.sort(key=lambda sequence: sequence.is_prefilling)  # stable: arrival order within each kind
    parts = []
    room = most_rows
    for sequence in running:
        if not room:
            break
        token_ids = sequence.next_rows(room)
        parts.append(BatchPart(
            sequence=sequence, token_ids=tuple(token_ids), first_position=sequence.computed_count,
            rotary_length=sequence.rotary_length(len(token_ids)),
        ))  # fmt: skip
        room -= len(token_ids)
    return parts
