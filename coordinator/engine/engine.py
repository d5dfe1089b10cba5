"""READ FIRST. One sweep after another: rows in, one token out for each sequence that is due one.

    schedule -> embed -> all layers -> final norm -> head -> sampler -> schedule

Covers: the order of a sweep. Does not cover: whose turn it is (schedule.py), rows (batch.py), layers and how many nodes
there are (ranks/layer_pass.py), text (answering/text_stream.py).
Threads: one; whoever calls `step` owns the engine. Between two sweeps it waits for no node.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from common.model.sweep_size import rows_per_sweep
from common.program.tallies import Tally
from coordinator.engine.ends import Ends
from coordinator.engine.head import Head
from coordinator.engine.ledger import KvLedger, RankRoom
from coordinator.engine.reading import Reading
from coordinator.engine.sampler import choose_together
from coordinator.engine.schedule import Arrived, Cancelled, RanksBack, Run, Schedule, State, SweepDone, Tell
from coordinator.engine.sequence import Sequence
from coordinator.engine.sweep_series import SweepSeries
from coordinator.ranks.layer_pass import Passed, layer_pass
from coordinator.ranks.ranks import Ranks
from coordinator.ranks.sweep import Sweep, Swept, SweptRows
from protos.shardmesh.v1 import shard_pb2


@dataclass(kw_only=True)
class EngineTimes:
    """Seconds spent so far outside of rounds."""

    sweep_count: int = 0
    sweeps: float = 0.0
    head: float = 0.0


class Engine:
    """Runs sequences through the ranks of one run. After an error these are of no more use, but the schedule is."""

    def __init__(
        self, ranks: Ranks, ends: Ends, head: Head, schedule: Schedule, series: SweepSeries | None = None,
        prompt_tokens: Tally | None = None,
    ) -> None:  # fmt: skip
        """Take open ranks and a schedule, which may have lost its last ones.

        Args: series: of sweeps; prompt_tokens: what is moved by tokens of prompts that were read.
        Raises: NodeError: the node is gone.
        """
        self.ranks, self.schedule = ranks, schedule
        self.times = EngineTimes()
        self._ends, self._head = ends, head
        self._layers = layer_pass(ranks, ends.residual)
        self._spec = ranks.identity.spec
        self._most_rows = rows_per_sweep(self._spec.hidden_size)
        self._sweep_id = 0
        self._series, self._prompt_tokens = series or SweepSeries(), prompt_tokens or Tally()
        self.swept: list[Callable[[Swept], None]] = []
        """Called with each sweep that is over, in the engine's thread, once its rounds have been looked at."""
        self.reading = Reading(self._spec.layer_count)
        ranks.observers.append(self.reading.observe)
        self.impossible = schedule.handle(RanksBack(ledger=_ledger(ranks)))
        """Ends of sequences that other ranks had room for, and these have not."""

    def add(self, sequence: Sequence) -> None:
        """Take a sequence into the next sweep that it fits.

        Raises: PromptTooLong; KvBudgetExceeded: a rank would not have room for it alone.
        """
        sequence.check_fits(self._spec.max_position_count)
        for tell in self.schedule.handle(Arrived(sequence=sequence)):
            if tell.error is not None:
                raise tell.error

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, finished or not; every rank hears of it with the next sweep."""
        self.schedule.handle(Cancelled(sequence_id=sequence.sequence_id))

    def step(self) -> list[Tell]:
        """Run one sweep and return what came of it: no token while prompts are being read.

        Raises: NodeError and what nodes report.
        """
        run = self.schedule.next_run(self._most_rows)
        self._series.sequences.value = len(self.schedule.sequences(State.RUNNING, State.REPLAYING))
        if run is None:
            return []
        if not run.parts:
            self.ranks.forget(run.closes)
            return []
        started = time.perf_counter()
        for sequence in run.opens:
            sequence.begun_at = sequence.begun_at or started
        self.reading.begin(run, started)
        token_ids = [token_id for part in run.parts for token_id in part.token_ids]
        self.ranks.path.begin(len(token_ids))
        hidden = self._ends.embed(token_ids)
        passed = self._layers.run(self._sweep(run), hidden)
        headed = time.perf_counter()
        done = self._predict(run, passed)
        finished = time.perf_counter()
        self.ranks.path.swept(finished - started, row_count=len(token_ids), token_count=len(done.predicted))
        self._count(run, done, finished - started)
        told = self.schedule.handle(done)
        if self.swept:
            self._tell_swept(run, started, headed, finished)
        return told

    def settle(self) -> None:
        """Have every rank forget what has ended, and wait until it has. Raises: NodeError."""
        run = self.schedule.next_run(0)
        if run is not None:
            self.ranks.forget(run.closes)
        self.ranks.settle()

    def _sweep(self, run: Run) -> Sweep:
        self._sweep_id += 1
        segments = [
            shard_pb2.Segment(
                sequence_id=part.sequence.sequence_id, first_position=first_position, row_count=row_count,
                rotary_length=rotary_length,
            )
            for part in run.parts
            for first_position, row_count, rotary_length in part.runs()
        ]  # fmt: skip
        changes = None
        if run.closes or run.opens:
            changes = shard_pb2.SequenceChanges(closed=run.closes)
            for sequence in run.opens:
                changes.opened.add(
                    sequence_id=sequence.sequence_id, position_capacity=sequence.position_capacity,
                    request_id=sequence.request_id,
                )  # fmt: skip
        return Sweep(sweep_id=self._sweep_id, segments=segments, changes=changes)

    def _predict(self, run: Run, passed: Passed) -> SweepDone:
        """Return the next token of each sequence that is due one, and what went wrong for single ones."""
        started = time.perf_counter()
        spoiled: dict[int, Exception] = dict(passed.spoiled)
        due, rows, first_row = [], [], 0
        for part in run.parts:
            if part.sequence.sequence_id in spoiled:
                continue
            due += [part.sequence for _ in part.logit_rows]
            rows += [first_row + row for row in part.logit_rows]
            first_row += len(part.token_ids)
        predicted: dict[int, int] = {}
        if due:
            logits = self._head.logits(self._ends.head_input(passed.hidden[rows]))
            for sequence, chosen in zip(due, choose_together(logits, [each.turn() for each in due]), strict=True):
                if isinstance(chosen, Exception):
                    spoiled[sequence.sequence_id] = chosen
                else:
                    predicted[sequence.sequence_id] = chosen.token_id
                    if chosen.likelihoods is not None:
                        sequence.likelihoods.append(chosen.likelihoods)
            elapsed = time.perf_counter() - started
            self.times.head += elapsed
            self._series.head_seconds.observe(elapsed)
        return SweepDone(predicted=predicted, spoiled=spoiled)

    def _tell_swept(self, run: Run, started: float, headed: float, finished: float) -> None:
        rows = tuple(
            SweptRows(part.sequence.request_id, len(part.token_ids), part.sequence.finish_reason) for part in run.parts
        )
        for told in self.swept:
            told(Swept(self._sweep_id, started, headed, finished, rows))

    def _count(self, run: Run, done: SweepDone, seconds: float) -> None:
        self.times.sweep_count += 1
        self.times.sweeps += seconds
        self._series.sweep_seconds.observe(seconds)
        self._prompt_tokens.value += sum(
            len(part.token_ids)
            for part in run.parts
            if part.first_position < len(part.sequence.prompt_ids) and part.sequence.sequence_id not in done.spoiled
        )


def _ledger(ranks: Ranks) -> KvLedger:
    """Return an empty book of what ranks have."""
    spec, plan = ranks.identity.spec, ranks.identity.plan
    return KvLedger([
        RankRoom(
            name=client.name, position_bytes=spec.kv_bytes(len(share.kv_heads(spec)), 1), budget_bytes=budget_bytes
        )
        for client, share, budget_bytes in zip(ranks.clients, plan.shares, ranks.kv_budget_bytes, strict=True)
    ])  # fmt: skip
