"""All ranks as one: opens sessions, sends each round to every rank that has a part in it, adds the parts.

Covers: the order of messages, which ranks take part, telling whose numbers are not finite, times.
Does not cover: transports (transports/transport.py), addition itself (reduction.py), what to run (engine/engine.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from common.compute.residual import Residual
from common.errors import NodeFault, ShapeError, ShardmeshError
from common.model.model_spec import ModelSpec
from common.model.plan import Plan
from common.model.sweep_size import rows_per_sweep
from common.weights.slice_format import ATTENTION, FFN
from common.wire.residual_message import encode_residual
from common.wire.rpc import PROTOCOL_VERSION
from common.wire.tensor_codec import decode_tensor, encode_tensor, wire_number
from coordinator.metrics import CoordinatorMetrics
from coordinator.ranks.reduction import reduce_and_check, reduce_partials
from coordinator.ranks.round_limits import RoundLimits, kind_of_round
from coordinator.ranks.round_memory import RoundMemory
from coordinator.ranks.round_record import RoundTimes
from coordinator.ranks.round_tensors import messages_of, partials_of
from coordinator.ranks.slow_nodes import SlowNodeWatch
from coordinator.ranks.transports.transport import ShardClient
from protos.shardmesh.v1 import shard_pb2

_KINDS = {ATTENTION: shard_pb2.BLOCK_KIND_ATTENTION, FFN: shard_pb2.BLOCK_KIND_FFN}


@dataclass(frozen=True, kw_only=True)
class RanksIdentity:
    """What every node must agree that it holds."""

    model_identity: str
    spec: ModelSpec
    plan: Plan
    dtype: str


@dataclass(kw_only=True)
class Ranks:
    """One session with every rank. After any error it is of no more use: close it and make another."""

    clients: Sequence[ShardClient]
    identity: RanksIdentity
    metrics: CoordinatorMetrics
    times: RoundTimes = field(default_factory=RoundTimes)
    wire: torch.dtype = torch.float32
    """How rounds' tensors travel in messages; one node's whole layers are float32 always."""
    told: Callable[[str], None] = lambda text: None
    """Called, from another thread, with a sentence about a node that is slow while it is waited for."""
    kv_budget_bytes: list[int] = field(default_factory=list)
    """By rank, once it is open: the most that keys and values of all sequences may take there."""
    _call_id: int = 0

    def __post_init__(self) -> None:
        self._memory = RoundMemory((), 0)
        self._limits = RoundLimits()
        self._slowness = SlowNodeWatch([client.name for client in self.clients], self.told)
        # Looking a label up takes as long as moving the series, and a token takes hundreds of rounds.
        ranks = [str(rank) for rank in range(len(self.clients))]
        self._round_trips = [self.metrics.round_trip_seconds.labels(rank=rank) for rank in ranks]
        self._slowest = [self.metrics.slowest_rounds.labels(rank=rank) for rank in ranks]
        shares = self.identity.plan.shares
        self._taking_part = {
            ATTENTION: [rank for rank, share in enumerate(shares) if share.query_head_count],
            FFN: [rank for rank, share in enumerate(shares) if share.ffn_column_count],
        }

    def open(self) -> None:
        """Open a session on every rank.

        Raises: SliceMismatch: a node holds something else; NodeError: a node is gone.
        """
        self._slowness.start()
        hidden_size = self.identity.spec.hidden_size
        self._memory = RoundMemory(
            [rank for rank, client in enumerate(self.clients) if client.passes_files and self.wire is torch.float32],
            rows_per_sweep(hidden_size) * hidden_size * torch.float32.itemsize,
        )
        try:
            self._open_sessions()
        finally:
            self._memory.close_files()

    def open_sequence(self, sequence_id: int, position_capacity: int) -> None:
        """Reserve a sequence's keys and values on every rank.

        Raises: KvBudgetExceeded: a rank has no room (named); NodeError.
        """

        def fill(request: shard_pb2.RoundsRequest) -> None:
            request.open_sequence.sequence_id = sequence_id
            request.open_sequence.position_capacity = position_capacity

        self._tell_all(fill, "sequence_opened")

    def close_sequence(self, sequence_id: int) -> None:
        """Give a sequence's room back on every rank. Raises: NodeError."""

        def fill(request: shard_pb2.RoundsRequest) -> None:
            request.close_sequence.sequence_id = sequence_id

        self._tell_all(fill, "sequence_closed")

    def input_place(self, shape: Sequence[int]) -> torch.Tensor | None:
        """Return where the next round's input, float32 of that shape, is best written, if anywhere; until it begins."""
        return self._memory.input_place(shape)

    def run_block(
        self, kind: str, layer: int, sweep_id: int, segments: Sequence[shard_pb2.Segment], rows: torch.Tensor
    ) -> torch.Tensor:
        """Run one round and return the block's output, float32 [row_count, hidden_size].

        Args: rows: the block's normed input, float32 [row_count, hidden_size].
        Raises: NodeError and what a node reports, the node named; NodeFault: its numbers are not finite.
        """
        started = time.perf_counter()
        request = self._request()
        block = request.run_block
        block.sweep_id = sweep_id
        block.layer = layer
        block.kind = _KINDS[kind]
        block.segments.extend(segments)
        limit_seconds = self._limits.seconds(kind, rows.shape[0])
        taking_part = self._taking_part[kind]  # a rank that holds nothing of a block is not asked
        in_memory = self._memory.ranks() if self._memory.input_place(rows.shape) is not None else ()
        for ranks, message in messages_of(request, block.input, rows, taking_part, self._memory, self.wire):
            for rank in ranks:
                self.clients[rank].round_limit_seconds = limit_seconds
                self._submit(self.clients[rank], message)
        responses, waits = [], []
        of_a_kind = kind_of_round(kind, rows.shape[0])
        before = started
        for rank in taking_part:
            self._slowness.waiting_for(rank, of_a_kind, before)
            responses.append(self._collect(self.clients[rank], "block_result").block_result)
            collected = time.perf_counter()
            self._round_trips[rank].observe(collected - started)
            waits.append((rank, collected - before))
            before = collected
        self._slowness.round_took(of_a_kind, waits)
        partials = partials_of(
            taking_part, responses, tuple(rows.shape), in_memory, self._memory, self.wire, self._refused
        )
        total, is_finite = reduce_and_check(partials)
        if not is_finite:
            self._name_who_is_not_finite(taking_part, partials, f"the {kind} block of layer {layer}")
        self._count(started, collected, taking_part, responses)
        self._limits.took(kind, rows.shape[0], collected - started)
        return total

    @property
    def is_one_node(self) -> bool:
        """Whether one rank holds all of every block, so that it can run whole layers."""
        return len(self.clients) == 1

    def load_norms(self, residual: Residual) -> None:
        """Give the only node what lies between blocks. Raises: NodeError."""

        self._tell_all(lambda request: encode_residual(residual, request.load_norms), "norms_loaded")

    def run_layers(
        self, first_layer: int, sweep_id: int, segments: Sequence[shard_pb2.Segment], hidden: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        """Let the only node run the layers from `first_layer` on; return the residual stream and the next layer.

        Args: hidden: the residual stream before the first layer, float32 [row_count, hidden_size].
        Raises: as run_block.
        """
        started = time.perf_counter()
        left = self.identity.spec.layer_count - first_layer
        request = self._request()
        layers = request.run_layers
        layers.sweep_id, layers.first_layer, layers.layer_count = sweep_id, first_layer, left
        layers.segments.extend(segments)
        encode_tensor(hidden, layers.input)
        client = self.clients[0]
        self._submit(client, request.SerializeToString())
        of_a_kind = kind_of_round("layers", hidden.shape[0])
        self._slowness.waiting_for(0, of_a_kind, started)
        result = self._collect(client, "layers_result").layers_result
        collected = time.perf_counter()
        self._round_trips[0].observe(collected - started)
        self._slowness.round_took(of_a_kind, [(0, collected - started)])
        if not 1 <= result.layer_count <= left:
            raise self._counted(NodeFault(f"{client.name} answered {result.layer_count} of {left} layers"))
        try:
            output = decode_tensor(result.output, shape=tuple(hidden.shape))
        except ShapeError as error:
            raise self._refused(0, error) from error
        total, is_finite = reduce_and_check([output])
        next_layer = first_layer + result.layer_count
        if not is_finite:
            self._name_who_is_not_finite([0], [output], f"layers {first_layer} to {next_layer - 1}")
        self._count(started, collected, [0], [result])
        return total, next_layer

    def close(self) -> None:
        """End every session; what the nodes hold for us is freed. May be called twice."""
        self._slowness.close()
        for client in self.clients:
            client.close()

    def _open_sessions(self) -> None:
        identity = self.identity
        request = self._request()
        for rank, client in enumerate(self.clients):
            opening = request.open_session
            opening.protocol_version = PROTOCOL_VERSION
            opening.model_identity = identity.model_identity
            opening.plan_digest = identity.plan.digest
            opening.rank = rank
            opening.weights_dtype = identity.dtype
            opening.wire_dtype = wire_number(self.wire)
            files = self._memory.offer(rank, opening)
            self._submit(client, request.SerializeToString(), files)
        for rank, client in enumerate(self.clients):
            opened = self._collect(client, "session_opened").session_opened
            self._memory.opened(rank, opened)
            self.kv_budget_bytes.append(opened.kv_budget_bytes)

    def _request(self) -> shard_pb2.RoundsRequest:
        self._call_id += 1
        return shard_pb2.RoundsRequest(call_id=self._call_id)

    def _tell_all(self, fill: Callable[[shard_pb2.RoundsRequest], None], expected: str) -> None:
        request = self._request()
        fill(request)
        message = request.SerializeToString()
        for client in self.clients:
            self._submit(client, message)
        started = time.perf_counter()
        for rank, client in enumerate(self.clients):
            self._slowness.waiting_for(rank, expected, started)
            self._collect(client, expected)
        self._slowness.idle()

    def _submit(self, client: ShardClient, message: bytes, files: Sequence[int] = ()) -> None:
        try:
            client.submit(message, files)
        except ShardmeshError as error:
            raise self._counted(error) from error.__cause__

    def _collect(self, client: ShardClient, expected: str) -> shard_pb2.RoundsResponse:
        try:
            response = client.collect()
        except ShardmeshError as error:
            raise self._counted(error) from error.__cause__
        body = response.WhichOneof("body")
        if body != expected:
            raise self._counted(NodeFault(f"{client.name} answered {body} where {expected} belongs"))
        if response.call_id != self._call_id:
            raise self._counted(NodeFault(f"{client.name} answered call {response.call_id} instead of {self._call_id}"))
        return response

    def _refused(self, rank: int, error: ShapeError) -> NodeFault:
        fault = NodeFault(f"{self.clients[rank].name} answered with no such tensor: {error}")
        self._counted(fault)
        return fault

    def _counted(self, error: ShardmeshError) -> ShardmeshError:
        """Count a failure of a node and return it, to be raised."""
        self._slowness.idle()
        self.metrics.node_failures.labels(reason=error.reason).inc()
        return error

    def _name_who_is_not_finite(self, ranks: Sequence[int], partials: Sequence[torch.Tensor], where: str) -> None:
        for rank, partial in zip(ranks, partials, strict=True):
            if not torch.isfinite(partial).all():
                raise self._counted(NodeFault(
                    f"{self.clients[rank].name} computed numbers that are not finite in {where}; "
                    "its weights or its memory are damaged"
                ))  # fmt: skip
        if not torch.isfinite(reduce_partials(partials)).all():
            raise NodeFault(f"{where} adds up to numbers that are not finite")

    def _count(
        self,
        started: float,
        collected: float,
        ranks: Sequence[int],
        results: Sequence[shard_pb2.BlockResult | shard_pb2.LayersResult],
    ) -> None:
        slowest = max(
            range(len(ranks)), key=lambda i: results[i].compute_nanoseconds + results[i].tile_wait_nanoseconds
        )
        self._slowest[ranks[slowest]].inc()
        seconds = time.perf_counter() - started
        self.times.add(results[slowest], seconds=seconds, reduction_seconds=seconds - (collected - started))
