"""Ranks without nodes: messages are answered where they are sent, by arithmetic that is easy to follow.

    mesh = FakeMesh(world_size=3)
    engine = mesh.engine()
    mesh.clients[1].refuses = {7}           # or .spoils, .dies_at, .holds_at, .late_seconds

Covers: the contract of ShardClient; a session's book of open sequences and how far each is computed; refusing, numbers
that are not finite, dying, answering late; counting what is sent and what is waited for.
Does not cover: what nodes distrust (shardnode/sessions/), tensors in shared memory, true transports.
Each rank's part of a row depends on the rows before it, and the sum of all parts on the order of addition.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from threading import Event

import numpy as np

from common.errors import KvBudgetExceeded, NodeLost, ProtocolError, ShardmeshError
from common.weights.slice_format import ATTENTION, FFN
from common.weights.stored_numbers import Floats, widened
from common.wire.rpc import status_of
from common.wire.tensor_codec import decode_tensor, encode_tensor
from coordinator.ranks.identity import RanksIdentity
from coordinator.ranks.transports.carriers import DIRECT, Carrier
from coordinator.ranks.transports.transport import ROUND_LIMIT_SECONDS, Arrived
from protos.shardmesh.v1 import shard_pb2

_KINDS = {shard_pb2.BLOCK_KIND_ATTENTION: ATTENTION, shard_pb2.BLOCK_KIND_FFN: FFN}
ROUNDS = ("run_block", "run_layers")


class _OpenSequence:
    """What a rank keeps of one sequence: by layer, a state after each position."""

    def __init__(self, capacity: int, layer_count: int) -> None:
        self.capacity = capacity
        self.states: list[list[Floats]] = [[] for _ in range(layer_count)]


class FakeClient:
    """One rank, and the session with it: see ShardClient."""

    passes_files = takes_packed = False
    carrier = Carrier(DIRECT)
    together = None

    def __init__(self, rank: int, identity: RanksIdentity, kv_budget_bytes: int) -> None:
        self.name, self.round_limit_seconds = f"node {rank}", ROUND_LIMIT_SECONDS
        self.refuses: set[int] = set()
        """Sequences that are not opened."""
        self.spoils: dict[int, tuple[str, int]] = {}
        """By sequence: in which block its rows are not finite."""
        self.dies_at: int | None = None
        """The how manyth message is answered no more."""
        self.holds_at: int | None = None
        """From the how manyth message on nothing is answered until `go_on`; `is_held` tells of it."""
        self.is_held = Event()
        self.late_seconds = 0.0
        """So much later than it does its answers come, as they say themselves."""
        self.messages: Counter[str] = Counter()
        """By body: what was sent to it."""
        self.waits_between_rounds: list[str] = []
        """What was waited for while no round was under way: the requests' bodies."""
        self.rounds: list[shard_pb2.RunBlock | shard_pb2.RunLayers] = []
        self.is_closed = False
        self.arrives_at: float | None = None
        """What answers say of when they came, instead of when they did."""
        self.open: dict[int, _OpenSequence] = {}
        self._rank, self._spec, self._budget_bytes = rank, identity.spec, kv_budget_bytes
        self._part = identity.plan.shares[rank]
        self._position_bytes = self._spec.kv_bytes(len(self._part.kv_heads(self._spec)), 1)
        self._answers: deque[tuple[str, Arrived | ShardmeshError]] = deque()
        self._may_answer = Event()
        self._may_answer.set()
        self._is_interrupted = self._is_dead = False
        self._last_call_id, self._last_sweep_id = 0, -1

    def go_on(self) -> None:
        """Answer what was held."""
        self._may_answer.set()

    def submit(self, message: bytes, files: Sequence[int] = ()) -> None:
        """See ShardClient; the work is done at once."""
        assert not files, "passes_files says that there are none"
        if self._is_dead or self.is_closed:
            raise NodeLost(f"{self.name} is gone")
        request = shard_pb2.RoundsRequest.FromString(message)
        body = request.WhichOneof("body") or ""
        self.messages[body] += 1
        self._answers.append((body, self._answer(request)))
        if self.messages.total() == self.holds_at:
            self._may_answer.clear()
            self.is_held.set()

    def collect(self) -> Arrived:
        """See ShardClient."""
        if not any(body in ROUNDS for body, _ in self._answers):
            self.waits_between_rounds.append(self._answers[0][0])
        self._may_answer.wait()
        if self._is_interrupted:
            raise NodeLost(f"{self.name} was interrupted")
        _, answer = self._answers.popleft()
        if isinstance(answer, ShardmeshError):
            raise answer
        return answer._replace(at=answer.at + self.late_seconds)

    def interrupt(self) -> None:
        """See ShardClient."""
        self._is_interrupted = True
        self._may_answer.set()

    def close(self) -> None:
        """See ShardClient."""
        self.is_closed = True

    def _answer(self, request: shard_pb2.RoundsRequest) -> Arrived | ShardmeshError:
        if self.dies_at is not None and self.messages.total() >= self.dies_at:
            self._is_dead = True
            return NodeLost(f"{self.name} has died")
        try:
            response = shard_pb2.RoundsResponse(call_id=request.call_id)
            self._handle(request, response)
        except ShardmeshError as error:
            self._is_dead = True
            return error
        at = time.perf_counter() if self.arrives_at is None else self.arrives_at
        return Arrived(response, at, response.ByteSize())

    def _handle(self, request: shard_pb2.RoundsRequest, response: shard_pb2.RoundsResponse) -> None:
        if request.call_id <= self._last_call_id:
            raise ProtocolError(f"call {request.call_id} after {self._last_call_id}")
        self._last_call_id = request.call_id
        body = request.WhichOneof("body")
        if body == "open_session":
            response.session_opened.kv_budget_bytes = self._budget_bytes
        elif body == "change_sequences":
            response.sequences_changed.refused.extend(self._change(request.change_sequences))
        elif body == "load_norms":
            response.norms_loaded.SetInParent()
        elif body == "run_block":
            block = request.run_block
            self._run(block, block.layer, (_KINDS[block.kind],), response.block_result, response.block_result.partial)
        elif body == "run_layers":
            layers, result = request.run_layers, response.layers_result
            result.layer_count = min(layers.layer_count, 1)  # always fewer than asked for
            self._run(layers, layers.first_layer, (ATTENTION, FFN), result, result.output)
        else:
            raise ProtocolError(f"{body} is no request")

    def _run(
        self, asked: shard_pb2.RunBlock | shard_pb2.RunLayers, layer: int, kinds: Sequence[str],
        result: shard_pb2.BlockResult | shard_pb2.LayersResult, into: object,
    ) -> None:  # fmt: skip
        self.rounds.append(asked)
        if asked.sweep_id != self._last_sweep_id:  # what the first message of a sweep says counts
            if asked.sweep_id < self._last_sweep_id:
                raise ProtocolError(f"sweep {asked.sweep_id} after {self._last_sweep_id}")
            self._last_sweep_id = asked.sweep_id
            result.refused.extend(self._change(asked.changes))
        refused = {one.sequence_id for one in result.refused}
        count = sum(segment.row_count for segment in asked.segments)
        rows = widened(decode_tensor(asked.input, shape=(count, self._spec.hidden_size))).copy()
        for kind in kinds:
            parts, first_row = [], 0
            for segment in asked.segments:
                own = rows[first_row : first_row + segment.row_count]
                first_row += segment.row_count
                parts.append(np.zeros_like(own) if segment.sequence_id in refused
                             else self._block(kind, layer, segment, own))  # fmt: skip
            rows = np.concatenate(parts) if len(kinds) == 1 else rows + np.concatenate(parts)
        result.compute_nanoseconds, result.tile_wait_nanoseconds = 1000 * (self._rank + 1), 10
        encode_tensor(rows, into)  # type: ignore[arg-type] # of either result

    def _block(self, kind: str, layer: int, segment: shard_pb2.Segment, rows: Floats) -> Floats:
        """Return this rank's part of one sequence's rows, each computed alone."""
        sequence = self.open.get(segment.sequence_id)
        if sequence is None:
            raise ProtocolError(f"sequence {segment.sequence_id} is not open")
        states = sequence.states[layer]
        if kind == ATTENTION:
            if segment.first_position > len(states):
                raise ProtocolError(f"position {segment.first_position} came after {len(states)}")
            del states[segment.first_position :]
        generator = np.random.default_rng(1000 * self._rank + 10 * layer + (kind == FFN))
        scale, shift = generator.standard_normal((2, rows.shape[1]), np.float32)
        parts = []
        for row in rows:
            if kind == ATTENTION:  # all positions so far count
                row = row + np.float32(0.6) * states[-1] if states else row
                states.append(row)
                assert len(states) <= sequence.capacity
            parts.append(np.sin(3 * np.roll(row, 1) * scale + shift) * np.float32(10.0 ** (self._rank % 3)))
        found = np.stack(parts)
        return found * np.float32(np.nan) if self.spoils.get(segment.sequence_id) == (kind, layer) else found

    def _change(self, changes: shard_pb2.SequenceChanges) -> list[shard_pb2.SequenceRefused]:
        for sequence_id in changes.closed:
            self.open.pop(sequence_id, None)
        refused = []
        for opening in changes.opened:
            sequence_id = opening.sequence_id
            if sequence_id in self.open:
                raise ProtocolError(f"sequence {sequence_id} is open already")
            held = sum(one.capacity for one in self.open.values()) + opening.position_capacity
            if sequence_id in self.refuses or held * self._position_bytes > self._budget_bytes:
                status = status_of(KvBudgetExceeded("no room"))
                failure = shard_pb2.Failure(status=status.code, reason=status.reason, message=status.message)
                refused.append(shard_pb2.SequenceRefused(sequence_id=sequence_id, failure=failure))
            else:
                self.open[sequence_id] = _OpenSequence(opening.position_capacity, self._spec.layer_count)
        return refused
