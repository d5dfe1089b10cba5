"""READ FIRST. One sweep after another: rows in, one token out for each sequence that is due one.

    batch -> embed -> [ norm -> attention round -> add -> norm -> FFN round -> add ] x layers
          -> final norm -> head -> sampler -> token

Covers: the order of a sweep, sequences joining and leaving between sweeps.
Does not cover: which rows (batch.py), ranks and messages (ranks/ranks.py), text (tokenizer/).
Threads: one; whoever calls `step` owns the engine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass

import torch

from common.model.sweep_size import rows_per_sweep
from common.weights.slice_format import BLOCK_KINDS
from coordinator.engine.batch import BatchPart, next_batch
from coordinator.engine.ends import Ends
from coordinator.engine.head import Head
from coordinator.engine.sequence import Sequence
from coordinator.ranks.ranks import Ranks
from protos.shardmesh.v1 import shard_pb2


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """One token of one sequence."""

    sequence: Sequence
    token_id: int


@dataclass(kw_only=True)
class EngineTimes:
    """Seconds spent so far outside of rounds."""

    sweep_count: int = 0
    sweeps: float = 0.0
    head: float = 0.0


class Engine:
    """Runs sequences through one mesh. After an error its mesh is of no more use."""

    def __init__(self, mesh: Ranks, ends: Ends, head: Head) -> None:
        """Take an open mesh. Raises: NodeError: its only node is gone."""
        self.mesh = mesh
        self.times = EngineTimes()
        self._ends = ends
        self._head = head
        self._spec = mesh.identity.spec
        self._most_rows = rows_per_sweep(self._spec.hidden_size)
        self._sequences: list[Sequence] = []
        if mesh.is_one_node:
            mesh.load_norms(ends.residual)
        self._sweep_id = 0

    def add(self, sequence: Sequence) -> None:
        """Take a sequence into the next sweep.

        Raises: PromptTooLong; KvBudgetExceeded: a rank has no room for it.
        """
        sequence.check_fits(self._spec.max_position_count)
        self.mesh.open_sequence(sequence.sequence_id, sequence.position_capacity)
        self._sequences.append(sequence)
        self.mesh.metrics.sequences.set(len(self._sequences))

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, finished or not, here and on every rank."""
        self._sequences.remove(sequence)
        self.mesh.metrics.sequences.set(len(self._sequences))
        self.mesh.close_sequence(sequence.sequence_id)

    @torch.inference_mode()
    def step(self) -> list[NewToken]:
        """Run one sweep and return the tokens it gave: none while prompts are still being read."""
        batch = next_batch(self._sequences, self._most_rows)
        if not batch:
            return []
        started = time.perf_counter()
        hidden = self._sweep(batch)
        for part in batch:
            part.sequence.computed_count += len(part.token_ids)
        tokens = self._predict(batch, hidden)
        self._count(batch, time.perf_counter() - started)
        for new in tokens:
            new.sequence.append(new.token_id)
            if new.sequence.finish_reason is not None:
                self.remove(new.sequence)
        return tokens

    def _sweep(self, batch: AnySequence[BatchPart]) -> torch.Tensor:
        """Return the residual stream after the last layer, float32 [row_count, hidden_size]."""
        self._sweep_id += 1
        segments = [
            shard_pb2.Segment(
                sequence_id=part.sequence.sequence_id, first_position=part.first_position,
                row_count=len(part.token_ids), rotary_length=part.rotary_length,
            )
            for part in batch
        ]  # fmt: skip
        hidden = self._ends.embed([token_id for part in batch for token_id in part.token_ids])
        if self.mesh.is_one_node:
            return self._whole_layers(segments, hidden)
        residual = self._ends.residual
        output: torch.Tensor | None = None
        for layer in range(self._spec.layer_count):
            for kind in BLOCK_KINDS:
                rows = residual.block_input(kind, layer, hidden, output, self.mesh.input_place(hidden.shape))
                output = self.mesh.run_block(kind, layer, self._sweep_id, segments, rows)
                residual.add_late_bias(kind, layer, output)
        return hidden if output is None else hidden + output

    def _whole_layers(self, segments: AnySequence[shard_pb2.Segment], hidden: torch.Tensor) -> torch.Tensor:
        """One node has nobody to add up with: it takes the steps between blocks too, and messages are saved."""
        next_layer = 0
        while next_layer < self._spec.layer_count:
            hidden, next_layer = self.mesh.run_layers(next_layer, self._sweep_id, segments, hidden)
        return hidden

    def _predict(self, batch: AnySequence[BatchPart], hidden: torch.Tensor) -> list[NewToken]:
        started = time.perf_counter()
        due, last_rows = [], []
        row = -1
        for part in batch:
            row += len(part.token_ids)
            if part.completes_prompt:
                due.append(part.sequence)
                last_rows.append(row)
        if not due:
            return []
        logits = self._head.logits(self._ends.head_input(hidden[last_rows]))
        tokens = [
            NewToken(sequence=sequence, token_id=sequence.sampler.sample(row_logits))
            for sequence, row_logits in zip(due, logits, strict=True)
        ]
        elapsed = time.perf_counter() - started
        self.times.head += elapsed
        self.mesh.metrics.head_seconds.observe(elapsed)
        return tokens

    def _count(self, batch: AnySequence[BatchPart], seconds: float) -> None:
        self.times.sweep_count += 1
        self.times.sweeps += seconds
        metrics = self.mesh.metrics
        metrics.sweep_seconds.observe(seconds)
        prompt_tokens = sum(
            len(part.token_ids) for part in batch if part.first_position < len(part.sequence.prompt_ids)
        )
        if prompt_tokens:
            metrics.tokens.labels(kind="prompt").inc(prompt_tokens)
