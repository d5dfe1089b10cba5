"""How far have prompts been read? Told now and then, also in the middle of a sweep, which may take half a minute.

    reading.begin(run, now)     # before a sweep
    reading.observe(rounds)     # once they are over, or a little later; tells

Covers: counting whole prompts by rounds that are over, how often it is told. Pure. Does not cover: who hears of it
(answering/answers.py). Threads: the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from common.weights.slice_format import ATTENTION
from coordinator.engine.schedule import Run
from coordinator.engine.sequence import Sequence
from coordinator.ranks.round_record import RoundRecord

TELL_SECONDS = 0.5
"""Between one word and the next, and before the first one: short prompts are read without any."""


class Reading:
    """The prompts of the sweep under way."""

    def __init__(self, layer_count: int) -> None:
        self.told: Callable[[Sequence, int], None] = lambda sequence, read_count: None
        """Called with a request whose first token is still to come, and how many tokens of its prompt are read."""
        self._layer_count = layer_count
        self._prompts: list[tuple[Sequence, int, int]] = []
        self._told_at = 0.0

    def begin(self, run: Run, now: float) -> None:
        """Note whose prompts a sweep reads. Args: now: the instant, as records have it."""
        was_reading = bool(self._prompts)
        self._prompts = [
            (part.sequence, part.first_position, len(part.token_ids))
            for part in run.parts
            if part.first_position < len(part.sequence.prompt_ids) and not part.sequence.generated_ids
        ]
        if not was_reading:
            self._told_at = now

    def observe(self, rounds: Iterable[RoundRecord]) -> None:
        """Tell how far each prompt is, if it is time to."""
        if self._prompts:
            for record in rounds:
                self._look(record)

    def _look(self, record: RoundRecord) -> None:
        if record.finished - self._told_at < TELL_SECONDS:
            return
        self._told_at = record.finished
        layers = record.layer + (0.5 if record.kind == ATTENTION else record.layer_count)
        for sequence, first_position, row_count in self._prompts:
            self.told(sequence, first_position + int(row_count * layers / self._layer_count))
